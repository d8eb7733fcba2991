"""Where the encoder of a readout comes from: a run, a file, timm, or fresh weights."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from midway.errors import MidwayError
from midway.models.dense_encoder import BackwardEncoder, DenseEncoder, VitEncoder, weights_hash
from midway.models.encoder_file import is_encoder_file, load_encoder
from midway.models.midway import MidwayNetwork
from midway.models.network_file import read_network_file
from midway.models.release import Told
from midway.models.timm_encoder import TimmEncoder
from midway.models.vit import EncoderConfig, VisionTransformer
from midway.models.weights import build

TIMM = "timm:"
RANDOM = "random"
NOTHING_TOLD = Told()


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """Which encoder a readout reads."""

    run: str = ""
    """Run folder, release .pth, .ckpt, .safetensors (of Midway, or an encoder with timm's names),
    hub id, timm:NAME, or random for a fresh ViT-S/16."""
    weights: Literal["teacher", "student"] = "teacher"
    """Which half of a Midway network: the EMA teacher or the student."""
    features: Literal["encoder", "backward"] = "encoder"
    """The encoder's levels, or Midway's backward features at the levels of its dynamics."""
    untrained: bool = False
    """Take the sizes of the network but fresh weights, drawn by the run's seed."""
    told: Annotated[Told, tyro.conf.OmitArgPrefixes] = field(default_factory=Told)
    """For a release file, where its arguments are silent or wrong."""
    weights_sha256: str = ""
    """Hash that the weights must have; filled in when a run begins, and checked on a resume."""


@dataclass(frozen=True, kw_only=True)
class OpenedEncoder:
    """An encoder with what tells which it is."""

    encoder: DenseEncoder
    weights_sha256: str
    """Of names and values of its tensors, whatever file they were in."""
    file: str | None
    """The checkpoint that it was read from, if any."""
    file_sha256: str | None


def open_encoder(source: EncoderSource) -> OpenedEncoder:
    """Encoder of a source, in evaluation mode; fresh weights come from torch's generator.

    Raises:
        MidwayError: No such network, not readable, without the features wanted, or with other
            weights than they must be.

    """
    if not source.run:
        raise MidwayError(
            "no network: give a run folder or checkpoint by --run RUN, or --run timm:NAME, or "
            "--run random"
        )
    encoder, file = _opened(source)
    found = weights_hash(encoder)
    if source.weights_sha256 and found != source.weights_sha256:
        raise MidwayError(
            f"{source.run}: holds other weights than this readout began with (SHA-256 {found[:12]} "
            f"instead of {source.weights_sha256[:12]}); put the old file back or start anew"
        )
    return OpenedEncoder(
        encoder=encoder.eval(),
        weights_sha256=found,
        file=None if file is None else str(file),
        file_sha256=None if file is None else _file_hash(file),
    )


def is_bare(run: str) -> bool:
    """Whether a source is an encoder alone; else it is a Midway network, or nothing at all."""
    return run.startswith(TIMM) or run == RANDOM or is_encoder_file(run)


def bare_encoder(
    run: str, *, untrained: bool = False, told: Told = NOTHING_TOLD
) -> VisionTransformer | TimmEncoder:
    """The encoder of a source that `is_bare`; fresh weights come from torch's generator.

    Args:
        run: As in `EncoderSource`.
        untrained: Take its sizes but fresh weights.
        told: Attention heads of an encoder file.

    Raises:
        MidwayError: It is not readable, or no plain ViT.

    """
    if run == RANDOM:
        return VisionTransformer(EncoderConfig())
    if run.startswith(TIMM):
        return TimmEncoder(run.removeprefix(TIMM), pretrained=not untrained)
    vit = load_encoder(run, heads=told.encoder_heads)
    return VisionTransformer(vit.config) if untrained else vit


def _opened(source: EncoderSource) -> tuple[DenseEncoder, Path | None]:
    if is_bare(source.run):
        _check_plain(source)
        bare = bare_encoder(source.run, untrained=source.untrained, told=source.told)
        is_read = is_encoder_file(source.run) and not source.untrained
        encoder = VitEncoder(bare) if isinstance(bare, VisionTransformer) else bare
        return encoder, Path(source.run) if is_read else None
    file = read_network_file(source.run)
    if source.untrained:
        return _part(MidwayNetwork(file.config(source.told)), source), None
    return _part(build(file, source.told), source), file.path


def _part(network: MidwayNetwork, source: EncoderSource) -> DenseEncoder:
    is_teacher = source.weights == "teacher"
    vit = network.teacher.encoder if is_teacher else network.encoder
    if source.features == "encoder":
        return VitEncoder(vit)
    return BackwardEncoder(vit, network.teacher if is_teacher else network.dynamics)


def _check_plain(source: EncoderSource) -> None:
    if source.features == "backward":
        raise MidwayError(
            f"{source.run}: is an encoder alone and has no backward features; take --features "
            "encoder"
        )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
