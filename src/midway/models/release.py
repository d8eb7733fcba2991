"""The layout of the published checkpoints: names to ours and back, sizes from shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from midway.errors import MidwayError
from midway.models.dynamics import DynamicsConfig
from midway.models.midway import HeadConfig, NetworkConfig
from midway.models.vit import EncoderConfig

PARTS = ("student", "teacher", "motion_loss", "dino_loss")
ENCODER_HEADS = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12, "vit_large": 16}

# Ours and theirs, part by part; {level} is 3, 6, 9 with us and 0, 1, 2 in the file.
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
    """Name in a published file of one of our tensors, its part ("student", ...) first."""
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
    raise MidwayError(f"{name}: has no place in the release layout; export to .safetensors instead")


def flatten_release(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a published file by full name; optimiser and arguments are left out."""
    return {
        f"{part}.{name}": tensor
        for part in PARTS
        for name, tensor in checkpoint.get(part, {}).items()
    }


def unflatten_release(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Inverse of `flatten_release`."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    return parts


class UnknownHeadsError(MidwayError):
    """A release file does not tell how many heads its encoder has."""


def config_from_release(
    tensors: Mapping[str, Tensor], args: Mapping[str, Any], *, encoder_heads: int | None
) -> NetworkConfig:
    """Sizes of the network in a published file: widths from shapes, head counts from `args`.

    Args:
        tensors: From `flatten_release`.
        args: The file's arguments as plain values; may be empty.
        encoder_heads: Needed when `args` names no known architecture.

    Raises:
        UnknownHeadsError: The encoder's heads are in neither.
        MidwayError: A tensor is missing, or the levels are contradictory.

    """
    encoder = _encoder_config(tensors, args, encoder_heads)
    found = _indices(tensors, r"motion_loss\.module\.forward_predictor_(\d+)\.")
    given = args.get("motion_feature_levels")
    levels = tuple(int(level) + 1 for level in given[:-1]) if given else _even(encoder.depth, found)
    if len(levels) != found:
        raise MidwayError(
            f"release file: {found} levels of forward models, but its arguments name {levels}"
        )
    direction = _tensor(tensors, "student.module.dino_head.last_layer.weight_v")
    hidden = _tensor(tensors, "student.module.dino_head.mlp.0.weight").shape[0]
    return NetworkConfig(
        encoder=encoder,
        dynamics=_dynamics_config(tensors, args.get("midway_model_configs") or {}, levels),
        head=HeadConfig(
            hidden=hidden, bottleneck=direction.shape[1], num_prototypes=direction.shape[0]
        ),
    )


def _encoder_config(
    tensors: Mapping[str, Tensor], args: Mapping[str, Any], heads: int | None
) -> EncoderConfig:
    prefix = "student.module.backbone."
    patches = _tensor(tensors, f"{prefix}patch_embed.proj.weight")
    width, patch_size = patches.shape[0], patches.shape[-1]
    num_positions = _tensor(tensors, f"{prefix}pos_embed").shape[1]
    heads = heads or ENCODER_HEADS.get(str(args.get("arch")))
    if heads is None:
        raise UnknownHeadsError(
            "release file: its arguments do not tell the encoder's number of heads; "
            "give encoder_heads (--encoder-heads), 6 for ViT-S and 12 for ViT-B"
        )
    side = round((num_positions - 1) ** 0.5) * patch_size
    resolution = args.get("global_crop_resolution") or (side, side)
    height, image_width = (int(length) for length in resolution)
    return EncoderConfig(
        image_size=(height, image_width),
        patch_size=patch_size,
        width=width,
        depth=_indices(tensors, r"student\.module\.backbone\.blocks\.(\d+)\."),
        heads=heads,
        drop_path=float(args.get("drop_path_rate", EncoderConfig.drop_path)),
    )


def _dynamics_config(
    tensors: Mapping[str, Tensor], heads: Mapping[str, Any], levels: tuple[int, ...]
) -> DynamicsConfig:
    prefix, default = "motion_loss.module.", DynamicsConfig()
    latents = tensors.get(f"{prefix}motion_tokens")
    return DynamicsConfig(
        levels=levels,
        latent_dynamics=latents is not None,
        backward_layers=any(name.startswith(f"{prefix}student_feature") for name in tensors),
        gates=any(name.startswith(f"{prefix}gating_mlps") for name in tensors),
        num_latents=default.num_latents if latents is None else latents.shape[1],
        midway_width=default.midway_width if latents is None else latents.shape[2],
        midway_depth=_indices(tensors, r"motion_loss\.module\.motion_blocks_0\.(\d+)\.")
        or default.midway_depth,
        forward_depth=_indices(tensors, r"motion_loss\.module\.forward_predictor_0\.(\d+)\."),
        midway_heads=int(heads.get("num_motion_heads", default.midway_heads)),
        backward_heads=int(heads.get("num_feature_heads", default.backward_heads)),
        forward_heads=int(heads.get("num_pred_heads", default.forward_heads)),
    )


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise MidwayError(f"release file: no tensor '{name}'; is this a Midway checkpoint?")
    return tensors[name]


def _indices(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers a pattern finds in the names."""
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _even(depth: int, count: int) -> tuple[int, ...]:
    """Levels spread evenly below the top, as 3, 6, 9 of 12."""
    return tuple(depth * (index + 1) // (count + 1) for index in range(count))
