"""Sources of networks in commands and evaluations: their options, loading and hashes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from midway.errors import MidwayError
from midway.models.encoders.backward import BackwardEncoder
from midway.models.encoders.base import Encoder, EncoderSpec
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.videomae import VideoMaeEncoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.files import WeightsFile, read_weights, sha256_of
from midway.models.weights.load import NO_HINTS, build_encoder, build_network, network_config
from midway.models.weights.release import ReleaseHints
from midway.nn.device import Accelerator, pick_device
from midway.nn.embed import Recolour

TIMM = "timm:"
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """Encoder of an evaluation."""

    network: str = ""
    """Run folder of any method, release .pth, .ckpt, .safetensors (of midway, or an encoder with
    timm's or torchvision's names), hub id, midway-tiny, timm:NAME, random for a fresh ViT-S/16
    or random:KIND for another kind of encoder."""
    weights: str = "teacher"
    """Encoder of a run or network: teacher (the EMA), student, or another of its names; ignored if
    there is only one."""
    features: Literal["encoder", "backward", "static_clip"] = "encoder"
    """Features of the encoder, backward features of Midway at the levels of its dynamics, or those
    of an encoder of clips that sees an image as a clip of equal frames (VideoMAE)."""
    untrained: bool = False
    """Use fresh weights of the same sizes, drawn by the seed of the run."""
    release: Annotated[ReleaseHints, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ReleaseHints
    )
    """Overrides for a release file with missing or wrong arguments."""
    weights_sha256: str = ""
    """Expected hash of the weights; set when a run begins, and checked on a resume."""


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """Midway network of an evaluation."""

    network: str = ""
    """Run folder, release .pth, .ckpt, .safetensors, hub id, midway-tiny, or random for a fresh
    ViT-S/16."""
    untrained: bool = False
    """Use fresh weights of the same sizes."""
    weights_seed: int = 0
    """Seed of fresh weights."""
    accelerator: Accelerator = "auto"
    """auto uses a GPU if there is one."""
    release: Annotated[ReleaseHints, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ReleaseHints
    )
    """Overrides for a release file with missing or wrong arguments."""


@dataclass(frozen=True, kw_only=True)
class OpenedEncoder:
    """An encoder and the hashes of its weights and of their file."""

    encoder: Encoder
    weights_sha256: str
    """SHA-256 of names and values of its tensors, whatever file they were in."""
    file: str | None
    """File of the weights; None for a model of timm and for fresh weights."""
    file_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network and the hashes of its weights and of their file."""

    network: MidwayNetwork
    """In evaluation mode, on its device."""
    weights_sha256: str
    """SHA-256 of names and values of its tensors, whatever file they were in."""
    file: str | None
    """File of the weights; None for fresh ones."""
    file_sha256: str | None


def load_encoder(
    name: str,
    *,
    weights: str = "teacher",
    untrained: bool = False,
    hints: ReleaseHints = NO_HINTS,
) -> Encoder:
    """Load the encoder of a run of any method, of a file, of timm, or a fresh one.

    Args:
        name: As for `--network`: run folder, release `.pth`, `.ckpt`, `.safetensors` (of midway, or
            with timm's or torchvision's names), "owner/name" on the Hugging Face hub,
            "midway-tiny", "timm:NAME", "random" for a ViT-S/16, "random:KIND".
        weights: Name of an encoder of a run or network; ignored if there is only one.
        untrained: If True, keep fresh weights of these sizes, drawn from torch's generator.
        hints: Overrides for a release file; `encoder_heads` for a file without configuration.

    Returns:
        The encoder in evaluation mode, on the CPU, with trainable parameters; `maps(images,
        levels)` returns its features.

    Raises:
        MidwayError: There is no such network, it is not readable, or its tensors do not match.

    """
    source = EncoderSource(network=name, weights=weights, untrained=untrained, release=hints)
    return _opened(source)[0]


def open_encoder(source: EncoderSource) -> OpenedEncoder:
    """Open the encoder of a source, in evaluation mode.

    Fresh weights come from torch's generator.

    Raises:
        MidwayError: There is no such network, it is not readable, it lacks the requested features,
            or its weights have another hash than expected.

    """
    encoder, file = _opened(source)
    # A resumed readout must continue on the same encoder.
    found = weights_hash(encoder)
    if source.weights_sha256 and found != source.weights_sha256:
        raise MidwayError(
            f"{source.network}: its weights are not those this readout began with (SHA-256 "
            f"{found[:12]} instead of {source.weights_sha256[:12]}); restore the old file or "
            "start a new run"
        )
    path, file_sha256 = _file_hash(None if source.untrained else file)
    return OpenedEncoder(encoder=encoder, weights_sha256=found, file=path, file_sha256=file_sha256)


def _opened(source: EncoderSource) -> tuple[Encoder, WeightsFile | None]:
    """Return the encoder of a source, in evaluation mode, and its file."""
    _check_named(source.network)
    file = read_source(source.network)
    encoder = _made(source) if file is None else _of_file(file, source)
    if source.features == "static_clip":
        if not isinstance(encoder, VideoMaeEncoder):
            raise MidwayError(
                f"{source.network}: a {encoder.kind} does not see clips; take --features encoder"
            )
        encoder.config = replace(encoder.config, still="clip")
    # The parameters of a network's teacher are frozen.
    return encoder.eval().requires_grad_(), file


def open_network(source: NetworkSource) -> OpenedNetwork:
    """Open the network of a source; for fresh weights, torch's global generator is seeded.

    Raises:
        MidwayError: No network is given, there is no such network, or it is not readable.

    """
    _check_named(source.network)
    file = read_source(source.network)
    if file is None and source.network != RANDOM:
        raise MidwayError(
            f"{source.network}: is only an encoder, and this needs the dynamics of a Midway "
            "network; give a run folder or a file of one"
        )
    if file is None or source.untrained:
        config = NetworkConfig() if file is None else network_config(file, source.release)
        torch.manual_seed(source.weights_seed)
        network = MidwayNetwork(config)
    else:
        network = build_network(file, source.release)
    path, file_sha256 = _file_hash(None if source.untrained else file)
    return OpenedNetwork(
        network=network.to(pick_device(source.accelerator)).eval(),
        weights_sha256=weights_hash(network),
        file=path,
        file_sha256=file_sha256,
    )


def read_source(name: str) -> WeightsFile | None:
    """Read the file of a `--network`; None for a model of timm or random weights.

    Raises:
        MidwayError: There is no such file, or it is not readable.

    """
    if name.startswith(TIMM) or name.partition(":")[0] == RANDOM:
        return None
    return read_weights(name)


def encoder_state(name: str, like: Encoder) -> dict[str, Tensor]:
    """Return the state dict of the encoder of a source, to load into an encoder of the same sizes.

    Weights for images in another normalisation are converted to ImageNet's.

    Args:
        name: As for `load_encoder`.
        like: Encoder that will load the state dict.

    Raises:
        MidwayError: There is no such encoder, or it has other sizes or heads.

    """
    encoder = load_encoder(name)
    state = encoder.state_dict()
    own_colours = None
    # The plain ViT of timm has the names and layout of ours.
    if isinstance(encoder, TimmEncoder) and not isinstance(like, TimmEncoder):
        state, own_colours = encoder.model.state_dict(), encoder.recolour
    elif isinstance(encoder, VisionTransformer):
        own_colours = encoder.patch_embed.recolour
    if other := differing(state, like.state_dict()):
        raise MidwayError(
            f"{name}: its encoder has other sizes ({other[0]} differs); give one of the sizes of "
            "this experiment"
        )
    own_heads, heads = (_heads(each) for each in (encoder, like))
    if own_heads != heads:
        raise MidwayError(
            f"{name}: its encoder has {own_heads} attention heads, not {heads}; give the "
            "experiment as many heads"
        )
    return state if own_colours is None else _in_colours_of(like, state, own_colours, name)


def _heads(encoder: Encoder) -> int | None:
    config = encoder.sizes if isinstance(encoder, TimmEncoder) else encoder.config
    return getattr(config, "heads", None)


def _in_colours_of(
    like: Encoder, state: Mapping[str, Tensor], own: Recolour, name: str
) -> dict[str, Tensor]:
    """Return the weights of a ViT for images in the normalisation of another one."""
    colours = like.patch_embed.recolour if isinstance(like, VisionTransformer) else own
    if own.is_like(colours):
        return dict(state)
    if not colours.is_identity:
        raise MidwayError(
            f"{name}: its encoder has another mean and std than this experiment's; leave out those "
            "of the experiment, and the weights are converted"
        )
    names = ("patch_embed.proj.weight", "patch_embed.proj.bias")
    weight, bias = own.folded_into(*(state[each] for each in names))
    return {**state, names[0]: weight, names[1]: bias}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that have another shape in the other state dict, or are absent.

    The names are sorted.
    """
    shapes, other_shapes = ({n: t.shape for n, t in state.items()} for state in (one, other))
    return sorted(name for name, _ in shapes.items() ^ other_shapes.items())


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of the names and values of all tensors of a module."""
    # Version 0.1 had a ViT's names below "vit."; hashes in old config.json files must stay valid.
    prefix = "vit." if isinstance(module, VisionTransformer) else ""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous()
        digest.update(f"{prefix}{name} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file_hash(file: WeightsFile | None) -> tuple[str | None, str | None]:
    """Return path and SHA-256 of a file of weights."""
    return (None, None) if file is None else (str(file.path), sha256_of(file.path))


def _check_named(network: str) -> None:
    if not network:
        raise MidwayError(
            "no network: give a run folder or checkpoint by --network RUN, or --network random"
        )


def _made(source: EncoderSource) -> Encoder:
    """Build an encoder that is not in a file."""
    _check_plain(source)
    name = source.network
    if name.startswith(TIMM):
        return TimmEncoder(name.removeprefix(TIMM), pretrained=not source.untrained)
    kind = name.partition(":")[2] or VisionTransformer.kind
    return EncoderSpec(kind=kind, config={}).build(where=name)


def _of_file(file: WeightsFile, source: EncoderSource) -> Encoder:
    if source.features != "backward":
        return build_encoder(file, source.weights, source.release, untrained=source.untrained)
    if not file.has_network:
        _check_plain(source)
    if source.weights not in ("student", "teacher"):
        raise MidwayError(
            f"{source.network}: no encoder '{source.weights}'; there are student, teacher: choose "
            "by --weights"
        )
    sizes = network_config(file, source.release)
    network = MidwayNetwork(sizes) if source.untrained else build_network(file, source.release)
    # Backward layers and encoder must be of one side, student or teacher.
    is_teacher = source.weights == "teacher"
    side = network.teacher if is_teacher else network.dynamics
    vit = network.teacher.encoder if is_teacher else network.encoder
    return BackwardEncoder(vit, side)


def _check_plain(source: EncoderSource) -> None:
    if source.features == "backward":
        raise MidwayError(
            f"{source.network}: is only an encoder and has no backward features; take --features "
            "encoder"
        )
