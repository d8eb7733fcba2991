"""Conversion of our ViT to the one of transformers."""

import re
from typing import TYPE_CHECKING

from torch import Tensor

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.vit_config import EncoderConfig
from midway.models.weights.layouts.names import from_transformers

if TYPE_CHECKING:
    from transformers import ViTModel

_FUSED = re.compile(r"(?P<attn>blocks\.\d+\.attn\.)(?P<part>[qkv])\.(?P<kind>weight|bias)")


def to_transformers(encoder: Encoder) -> "ViTModel":
    """Return the `ViTModel` of transformers with the weights of a ViT, in evaluation mode.

    Its `last_hidden_state` equals the tokens of the top level, for images that are normalised by
    `encoder.config.mean` and `std`. `save_pretrained` writes it for `from_pretrained`.

    Args:
        encoder: A ViT with learned positions and neither registers, layer scale nor gated MLPs.

    Raises:
        MidwayError: transformers is not installed, or the encoder is not such a ViT.

    """
    try:
        from transformers import ViTConfig, ViTModel
    except ImportError as error:
        raise MidwayError(
            f"to_transformers: needs transformers ({error}); pip install "
            "'midway-network[transformers]'"
        ) from None
    config = _plain_config(encoder)
    (height, width), patch = config.image_size, config.patch_size
    model = ViTModel(
        ViTConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            layer_norm_eps=config.norm_eps,
            image_size=(height, width),  # pyright: ignore[reportArgumentType]
            patch_size=patch,
        ),
        add_pooling_layer=False,
    )
    state = encoder.state_dict()
    model.load_state_dict({name: _taken(state, name) for name in model.state_dict()})
    return model.eval()


def _plain_config(encoder: Encoder) -> EncoderConfig:
    config = encoder.config
    if isinstance(encoder, VisionTransformer) and not (
        config.num_registers or config.layer_scale or config.swiglu or config.positions != "learned"
    ):
        return config
    raise MidwayError(
        f"to_transformers: ViTModel has no place for this {encoder.kind}; give a ViT with learned "
        "positions and without registers, layer scale and gated MLPs"
    )


def _taken(state: dict[str, Tensor], name: str) -> Tensor:
    """Return the tensor of our ViT for a name of transformers."""
    own = from_transformers(name)
    if separate := _FUSED.fullmatch(own):
        # Queries, keys and values are one tensor in timm's layout, which is ours.
        fused = state[f"{separate['attn']}qkv.{separate['kind']}"]
        return fused.chunk(3)["qkv".index(separate["part"])]
    return state[own]
