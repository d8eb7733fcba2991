"""Table 9 of the paper, counted on our networks by the convention of its figures.

The paper's "GFLOPs" are multiply-adds of the forward passes of one sample, by student, EMA teacher
and flow network, for all tokens. Our networks skip what nothing reads; the terms below add it.
Parameters are those of the encoder, and of decoders or dynamics; projection heads do not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from midway.bench.costs import costs_of
from midway.methods.base import Method, MethodConfig, build_method
from midway.methods.croco import Croco, CrocoConfig
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import Dynamo, DynamoConfig
from midway.methods.ibot import IbotConfig
from midway.methods.midway import Midway, MidwayConfig
from midway.methods.poodle import Poodle, PoodleConfig
from midway.methods.videomae import VideoMae, VideoMaeConfig
from midway.models.flow.raft import Raft

ALL_TOKENS = "all tokens of each crop"
RAFT_ITERATIONS = 24


def skipped(tokens: int, *, read: int = 1, width: int = 384) -> int:
    """Return the multiply-adds that the last block of a ViT skips.

    Args:
        tokens: Tokens of the sequence, class token included.
        read: Tokens whose output is read: the class token only, in most losses.
        width: Width of the block.

    """
    # The attention's output projection and the MLP; attention itself, queries and keys.
    return (tokens - read) * (9 * width**2 + 2 * tokens * width)


# Student and teacher see 8 global crops of 224 pixels and 16 local ones of 96 in a pair.
PAIR = 8 * skipped(197) + 16 * skipped(37)
# At 3 levels, in both orders, nothing reads the frames' tokens after the midway path.
MIDWAY_PATH = 6 * skipped(404, read=10, width=192)
# Two frames by student and teacher, whose class tokens the dynamics read.
FRAMES = 4 * skipped(197)
# Eight frames: three masked crops, and six local ones of 112 pixels. The teacher's tokens are read.
CLIP = 8 * (3 * skipped(197) + 6 * skipped(50))
# iBOT's head: of the student's tokens, ours projects 12 class tokens and 2 x 98 patches; of the
# teacher's, all, of which 2 + 2 x 98 + 2 meet the prototypes.
PROJECTION, PROTOTYPES = 384 * 2048 + 2048 * 2048 + 2048 * 256, 256 * 8192
HEAD = (2 * 197 + 10 * 37 - 208) * (PROJECTION + PROTOTYPES) + (2 * 197 - 200) * PROTOTYPES


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table, and the assumptions that reproduce it."""

    config: MethodConfig
    paper_encoder: float
    """Parameters of the encoder in the paper, in units of 1e6."""
    paper_other: float = 0.0
    """Those of decoder or dynamics."""
    others: Callable[[Method], Sequence[nn.Module]] = lambda method: ()
    """Decoder or dynamics of the method."""
    added: float = 0
    """Multiply-adds that the table counts and our networks skip."""
    assumption: str


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Our figures of a row beside the paper's; multiply-adds in 1e9, parameters in 1e6."""

    method: str
    sample: str
    run: float
    """Multiply-adds that our networks run."""
    multiply_adds: float
    """The same by the convention of the table."""
    paper_multiply_adds: float
    encoder: float
    paper_encoder: float
    other: float
    paper_other: float
    assumption: str
    difference_percent: dict[str, float] = field(init=False)
    """Our figures less the paper's: multiply-adds, and all parameters."""

    def __post_init__(self) -> None:
        pairs = {
            "multiply_adds": (self.multiply_adds, self.paper_multiply_adds),
            "parameters": (self.encoder + self.other, self.paper_encoder + self.paper_other),
        }
        found = {name: 100 * (ours / paper - 1) for name, (ours, paper) in pairs.items()}
        object.__setattr__(self, "difference_percent", found)


def _of_videomae(method: Method) -> Sequence[nn.Module]:
    assert isinstance(method, VideoMae)
    return method.encoder_to_decoder, method.decoder


def _of_croco(method: Method) -> Sequence[nn.Module]:
    assert isinstance(method, Croco)
    return (method.decoder,)


def _of_dynamo(method: Method) -> Sequence[nn.Module]:
    assert isinstance(method, Dynamo)
    return method.inverse, method.forward_dynamics


def _of_poodle(method: Method) -> Sequence[nn.Module]:
    assert isinstance(method, Poodle)
    encoder = method.student.encoder
    return [part for part in encoder.children() if part is not encoder.backbone]


def _of_midway(method: Method) -> Sequence[nn.Module]:
    assert isinstance(method, Midway)
    return (method.network.dynamics,)


ROWS = (
    Row(config=DinoConfig(), paper_encoder=21.7, added=PAIR, assumption=f"pair; {ALL_TOKENS}"),
    Row(
        config=IbotConfig(),
        paper_encoder=21.7,
        added=10 * skipped(37) + HEAD,
        assumption="image; the head on all tokens, those of local crops too",
    ),
    Row(
        config=DoraConfig(),
        paper_encoder=21.7,
        added=CLIP,
        assumption=f"8 frames; {ALL_TOKENS}",
    ),
    Row(
        config=VideoMaeConfig(),
        paper_encoder=22.0,
        paper_other=2.0,
        others=_of_videomae,
        assumption="16 frames; decoder 192 wide, 4 deep, with its bridge and pixel head",
    ),
    Row(
        config=CrocoConfig(),
        paper_encoder=21.7,
        paper_other=7.2,
        others=_of_croco,
        assumption="pair; decoder 192 wide, 12 deep, without its pixel head",
    ),
    Row(
        config=DynamoConfig(),
        paper_encoder=21.7,
        paper_other=13.0,
        others=_of_dynamo,
        added=PAIR + FRAMES,
        assumption=f"pair, DINO and 4 more frames; {ALL_TOKENS}; dynamics 360 wide, 4 + 4 deep",
    ),
    Row(
        config=PoodleConfig(),
        paper_encoder=23.5,
        paper_other=12.1,
        others=_of_poodle,
        assumption="pair at 224 pixels; RAFT in one direction, upsampling after each iteration",
    ),
    Row(
        config=MidwayConfig(),
        paper_encoder=21.7,
        paper_other=36.6,
        others=_of_midway,
        added=PAIR + MIDWAY_PATH,
        assumption=f"pair; {ALL_TOKENS}, and of the midway path",
    ),
)
"""Rows in the order of `METHODS.md`; the table has no row of MAE."""


def count(row: Row) -> Counted:
    """Count a row on shapes, without computing anything."""
    with torch.device("meta"):
        method = build_method(row.config)
    about = type(method).about
    assert about is not None
    assert about.paper_giga_multiply_adds is not None
    run = costs_of(row.config).multiply_adds
    added = row.added + (raft_difference() if isinstance(method, Poodle) else 0)
    others = sum(_size(part) for part in row.others(method))
    return Counted(
        method=row.config.name,
        sample=about.sample,
        run=run / 1e9,
        multiply_adds=(run + added) / 1e9,
        paper_multiply_adds=about.paper_giga_multiply_adds,
        encoder=_size(method.encoders["student"]) / 1e6,
        paper_encoder=row.paper_encoder,
        other=others / 1e6,
        paper_other=row.paper_other,
        assumption=row.assumption,
    )


def raft_difference() -> float:
    """Return the multiply-adds of RAFT as the table counts it, less those of ours.

    The table has one direction, with an upsampling mask after each of the 24 iterations. Ours
    estimates both directions, and upsamples the last flow.
    """
    with torch.device("meta"):
        raft = Raft(iterations=RAFT_ITERATIONS)
        image, hidden = torch.rand(1, 3, *PoodleConfig().size), torch.rand(1, 128, 28, 28)
        once, both, mask = (
            _multiply_adds(call)
            for call in (
                partial(raft, image, image),
                partial(raft.both_ways, image, image),
                partial(raft.mask_predictor, hidden),
            )
        )
    return once + (RAFT_ITERATIONS - 1) * mask - both


def _multiply_adds(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
