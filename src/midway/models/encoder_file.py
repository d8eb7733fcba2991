"""An encoder alone in a .safetensors file with timm's names, as converted weights are kept."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from midway.errors import MidwayError
from midway.models.vit import EncoderConfig, VisionTransformer

HEAD_WIDTH = 64
"""Channels of an attention head in every published ViT."""
LEFT_OUT = ("head.", "fc_norm.")
"""Of classifiers, which no readout takes."""


def is_encoder_file(path: str) -> bool:
    """Whether it is a .safetensors file without a Midway network's configuration."""
    if not (path.endswith(".safetensors") and Path(path).is_file()):
        return False
    with _opened(path) as file:
        return "midway" not in (file.metadata() or {})


def load_encoder(path: str, *, heads: int | None = None) -> VisionTransformer:
    """A plain ViT whose sizes are read off its tensors, in evaluation mode.

    Args:
        path: Tensors with the names of timm's `VisionTransformer`; square position table.
        heads: Attention heads; if None, one for each 64 channels.

    Raises:
        MidwayError: Not readable, or tensors left over on either side.

    """
    with _opened(path) as file:
        tensors = {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if not name.startswith(LEFT_OUT)
        }
    encoder = VisionTransformer(_config(path, tensors, heads))
    state = encoder.state_dict()
    wrong = sorted(
        name
        for name in state.keys() | tensors.keys()
        if name not in state or name not in tensors or state[name].shape != tensors[name].shape
    )
    if wrong:
        raise MidwayError(
            f"{path}: no plain ViT with timm's names: {len(wrong)} tensors are missing, unknown or "
            f"of another shape ({', '.join(wrong[:4])}); models with more parts may serve as "
            "timm:NAME"
        )
    encoder.load_state_dict(tensors)
    return encoder.eval()


def _config(path: str, tensors: dict[str, Tensor], heads: int | None) -> EncoderConfig:
    try:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        side = round((tensors["pos_embed"].shape[1] - 1) ** 0.5)
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
        registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    except (KeyError, ValueError, IndexError) as error:
        raise MidwayError(f"{path}: no ViT with timm's names in it ({error})") from None
    return EncoderConfig(
        image_size=(side * patch, side * patch),
        patch_size=patch,
        width=width,
        depth=len(blocks),
        heads=heads or max(1, width // HEAD_WIDTH),
        num_registers=registers,
    )


def _opened(path: str) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise MidwayError(f"{path}: no readable safetensors file ({error})") from None
