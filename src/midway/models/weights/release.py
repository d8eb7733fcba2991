"""Layout of the published checkpoints: tensor names, and network sizes from shapes."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midway.errors import MidwayError
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.weights.safe_pickle import named_tensors

PARTS = ("student", "teacher", "motion_loss", "dino_loss")
OTHER_PARTS = ("optimizer", "epoch", "args", "fp16_scaler")
ENCODER_HEADS = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12, "vit_large": 16}
PUBLISHED_ARCHS = ("vit_small", "vit_base")
PUBLISHED_WIDTHS = (384, 768)
PUBLISHED_MIDWAY_WIDTHS = (192, 384)

# Our name, then that of the release; {level} is 3, 6, 9 here and 0, 1, 2 in the file.
_NAMES = (
    ("encoder.", "student.module.backbone."),
    ("head.", "student.module.dino_head."),
    ("teacher.encoder.", "teacher.backbone."),
    ("teacher.head.", "teacher.dino_head."),
    ("dynamics.down.", "motion_loss.module.student_embed."),
    ("teacher.down.", "motion_loss.module.teacher_embed."),
    ("dynamics.backward_layers.{level}.", "motion_loss.module.student_feature_blocks_{level}.0."),
    ("teacher.backward_layers.{level}.", "motion_loss.module.teacher_feature_blocks_{level}.0."),
    ("dynamics.midway_path.motion_tokens", "motion_loss.module.motion_tokens"),
    ("dynamics.midway_path.pos_embed", "motion_loss.module.pos_embed"),
    ("dynamics.midway_path.blocks.{level}.", "motion_loss.module.motion_blocks_{level}."),
    ("dynamics.midway_path.up.", "motion_loss.module.motion_proj."),
    ("dynamics.forward_models.{level}.blocks.", "motion_loss.module.forward_predictor_{level}."),
    ("dynamics.forward_models.{level}.gates.", "motion_loss.module.gating_mlps_{level}."),
    ("dino_loss.center", "dino_loss.center"),
)
_ENDINGS = (
    (".cross_attn.query.", ".cross_attn.projq."),
    (".cross_attn.key.", ".cross_attn.projk."),
    (".cross_attn.value.", ".cross_attn.projv."),
    (".norm_memory.", ".norm_y."),
    (".last_layer.gain", ".last_layer.weight_g"),
    (".last_layer.direction", ".last_layer.weight_v"),
)


def to_release_name(name: str, levels: tuple[int, ...]) -> str:
    """Return the name of one of our tensors in a release file, with its part ("student", ...).

    Raises:
        MidwayError: The release layout has no such tensor.

    """
    for ours, theirs in _NAMES:
        found = re.match(re.escape(ours).replace(r"\{level\}", r"(?P<level>\d+)"), name)
        if not found:
            continue
        index = levels.index(int(found["level"])) if "{level}" in ours else 0
        rest = name[found.end() :]
        if ".gates." in found.group():
            rest = rest.replace("norm.", "norm_layer.")
        renamed = theirs.replace("{level}", str(index)) + rest
        for our_ending, their_ending in _ENDINGS:
            renamed = renamed.replace(our_ending, their_ending)
        return renamed
    raise MidwayError(f"{name}: not in the release layout; export to .safetensors instead")


def is_release(contents: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint is in the release layout, rather than one of DINO or others."""
    if "motion_loss" in contents:
        return True
    names = contents.get("student")
    heads = isinstance(names, Mapping) and any("dino_head" in str(name) for name in names)
    # The arguments of a release file name sizes of the dynamics.
    args = contents.get("args")
    return heads or (isinstance(args, Mapping) and "midway_model_configs" in args)


def flatten_release(checkpoint: Mapping[str, Any], *, where: str) -> dict[str, Tensor]:
    """Return the tensors of a release file by full name, without optimiser and arguments.

    Raises:
        MidwayError: A part is unknown, or is not a state dict.

    """
    unknown = [str(part) for part in checkpoint if part not in PARTS + OTHER_PARTS]
    if unknown:
        raise MidwayError(
            f"{where}: the release layout has no part {', '.join(unknown)}; remove it, or give "
            "another file"
        )
    return {
        f"{part}.{name}": tensor
        for part in PARTS
        if part in checkpoint
        for name, tensor in named_tensors(checkpoint[part], where=f"{where}: {part}").items()
    }


def unflatten_release(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the parts of a release file with their tensors: the inverse of `flatten_release`."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    return parts


@dataclass(frozen=True, kw_only=True)
class ReleaseHints:
    """Overrides for values that a release file's tensor shapes do not determine."""

    encoder_heads: int | None = None
    """Attention heads of the encoder."""
    midway_heads: int | None = None
    """Attention heads of the midway path."""
    backward_heads: int | None = None
    """Attention heads of the backward layers."""
    forward_heads: int | None = None
    """Attention heads of the forward models."""
    image_size: tuple[int, int] | None = None
    """Height and width of the position table, in pixels."""


class UnknownHeadsError(MidwayError):
    """Raised if a release file does not determine all numbers of attention heads.

    Args:
        where: Name of the file.
        names: Fields of `ReleaseHints` that are needed.

    """

    def __init__(self, where: str, names: tuple[str, ...]) -> None:
        options = ", ".join("--" + name.replace("_", "-") for name in names)
        super().__init__(
            f"{where}: its arguments do not determine the numbers of attention heads; "
            f"give {', '.join(names)} ({options})"
        )
        self.names = names


def release_sizes(
    tensors: Mapping[str, Tensor], args: object, hints: ReleaseHints, *, where: str
) -> dict[str, Any]:
    """Return the fields of the `NetworkConfig` of a release file, not yet validated.

    Widths and depths come from shapes, the rest from the hints, then from the file's arguments.
    Defaults are evenly spaced levels, square images, the published drop path of 0.1 for ViT-S and
    ViT-B and otherwise 0, and for published widths the published heads of the dynamics.

    Args:
        tensors: Output of `flatten_release`.
        args: Arguments of the file as plain values; None if there are none.
        hints: Overrides.
        where: Name of the file, for error messages.

    Raises:
        UnknownHeadsError: A number of attention heads is unknown.
        MidwayError: A tensor is missing, or the arguments are contradictory.

    """
    args = _dict({"args": args}, "args", where)
    encoder = _encoder_sizes(tensors, args, hints, where)
    dynamics = _dynamics_sizes(tensors, where)
    found = _indices(tensors, r"motion_loss\.module\.forward_predictor_(\d+)\.")
    levels = _levels(args, where) or _even(encoder["depth"], found)
    if len(levels) != found:
        raise MidwayError(
            f"{where}: {found} levels of forward models, but its arguments name {levels}"
        )
    # Shapes do not contain the number of heads.
    is_published = (
        encoder["width"] in PUBLISHED_WIDTHS
        and dynamics.get("midway_width", PUBLISHED_MIDWAY_WIDTHS[0]) in PUBLISHED_MIDWAY_WIDTHS
    )
    heads = _heads(args, hints, DynamicsConfig() if is_published else None, where)
    # (prototypes, bottleneck) and (hidden, dim)
    direction = _tensor(tensors, "student.module.dino_head.last_layer.weight_v", 2, where)
    hidden = _tensor(tensors, "student.module.dino_head.mlp.0.weight", 2, where).shape[0]
    return {
        "encoder": encoder | {"heads": heads.pop("encoder_heads")},
        "dynamics": dynamics | heads | {"levels": levels},
        "head": {
            "hidden": hidden,
            "bottleneck": direction.shape[1],
            "num_prototypes": direction.shape[0],
        },
    }


def _encoder_sizes(
    tensors: Mapping[str, Tensor], args: Mapping[str, Any], hints: ReleaseHints, where: str
) -> dict[str, Any]:
    prefix = "student.module.backbone."
    patches = _tensor(tensors, f"{prefix}patch_embed.proj.weight", 4, where)
    # (width, 3, patch, patch) and (1, 1 + rows * columns, width)
    num_positions = _tensor(tensors, f"{prefix}pos_embed", 3, where).shape[1]
    patch_size = patches.shape[-1]
    resolution = args.get("global_crop_resolution")
    if hints.image_size is not None:
        resolution = hints.image_size
    if resolution is None:
        resolution = math.isqrt(max(num_positions - 1, 0)) * patch_size
    drop_path = args.get("drop_path_rate")
    if drop_path is None:
        published = args.get("arch") in PUBLISHED_ARCHS
        drop_path = EncoderConfig.drop_path if published else 0.0
    return {
        "image_size": (resolution, resolution) if isinstance(resolution, int) else resolution,
        "patch_size": patch_size,
        "width": patches.shape[0],
        "depth": _indices(tensors, r"student\.module\.backbone\.blocks\.(\d+)\."),
        "num_registers": _num_tokens(tensors, f"{prefix}reg_token", where),
        "drop_path": drop_path,
    }


def _dynamics_sizes(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Return the sizes that follow from shapes; without a midway path, those of it are missing."""
    prefix = "motion_loss.module."
    tokens = f"{prefix}motion_tokens"
    sizes = {
        "latent_dynamics": tokens in tensors,
        "backward_layers": any(name.startswith(f"{prefix}student_feature") for name in tensors),
        "gates": any(name.startswith(f"{prefix}gating_mlps") for name in tensors),
        "forward_depth": _indices(tensors, r"motion_loss\.module\.forward_predictor_0\.(\d+)\."),
    }
    if tokens not in tensors:
        return sizes
    return sizes | {
        "num_latents": _num_tokens(tensors, tokens, where),
        "midway_width": tensors[tokens].shape[2],
        "midway_depth": _indices(tensors, r"motion_loss\.module\.motion_blocks_0\.(\d+)\."),
    }


def _heads(
    args: Mapping[str, Any], hints: ReleaseHints, published: DynamicsConfig | None, where: str
) -> dict[str, Any]:
    """Return every number of heads: from the hints, else the arguments, else the published one."""
    dynamics, arch = _dict(args, "midway_model_configs", where), args.get("arch")
    of_args = {
        "encoder_heads": ENCODER_HEADS.get(arch) if isinstance(arch, str) else None,
        "midway_heads": dynamics.get("num_motion_heads"),
        "backward_heads": dynamics.get("num_feature_heads"),
        "forward_heads": dynamics.get("num_pred_heads"),
    }
    heads = {}
    for name, of_arg in of_args.items():
        candidates = (getattr(hints, name), of_arg, getattr(published, name, None))
        heads[name] = next((heads for heads in candidates if heads is not None), None)
    unknown = tuple(name for name, number in heads.items() if number is None)
    if unknown:
        raise UnknownHeadsError(where, unknown)
    return heads


def _levels(args: Mapping[str, Any], where: str) -> tuple[int, ...]:
    """Return the objective levels of the arguments; empty if they contain none."""
    given = args.get("motion_feature_levels")
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(level, int) for level in given):
        raise MidwayError(
            f"{where}: its motion_feature_levels are not a list of integers; fetch it again"
        )
    # The release counts from 0, and its last level is the top.
    return tuple(level + 1 for level in given[:-1])


def _dict(values: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """Return a dict among the arguments; empty if it is missing or None."""
    found = values.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise MidwayError(
            f"{where}: its {name} is a {type(found).__name__}, not a dict; fetch it again"
        )
    return found


def _tensor(tensors: Mapping[str, Tensor], name: str, ndim: int, where: str) -> Tensor:
    if name not in tensors:
        raise MidwayError(f"{where}: no tensor '{name}'; is this a Midway checkpoint?")
    if tensors[name].ndim != ndim:
        raise MidwayError(
            f"{where}: tensor '{name}' has {tensors[name].ndim} dimensions instead of {ndim}; "
            "is this a Midway checkpoint?"
        )
    return tensors[name]


def _num_tokens(tensors: Mapping[str, Tensor], name: str, where: str) -> int:
    """Count the tokens of a table of shape (1, tokens, dim); 0 if it is missing."""
    return _tensor(tensors, name, 3, where).shape[1] if name in tensors else 0


def _indices(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Count the different indices that a pattern matches in the names."""
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _even(depth: int, count: int) -> tuple[int, ...]:
    """Return evenly spaced levels below the top, such as 3, 6, 9 of 12."""
    return tuple(depth * (index + 1) // (count + 1) for index in range(count))
