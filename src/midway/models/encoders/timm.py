"""Plain vision transformers of timm as encoders; timm itself is optional."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map
from midway.models.encoders.vit import EncoderConfig
from midway.nn.embed import Recolour


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Name of a timm model."""

    name: str
    """Argument of `timm.create_model`, such as ``vit_small_patch16_224.dino``."""


class TimmEncoder(Encoder):
    """A ViT of timm, with images converted to the normalisation of its training.

    Args:
        name: Argument of `timm.create_model`.
        pretrained: If True, load the published weights; else draw fresh ones.

    Raises:
        MidwayError: timm is not installed, has no such model, cannot load its weights, or the
            model is not a plain ViT.

    """

    kind = "timm"
    Config: ClassVar[type] = TimmConfig
    config: TimmConfig

    def __init__(self, name: str, *, pretrained: bool) -> None:
        super().__init__()
        self.config = TimmConfig(name=name)
        self.model = _created(name, pretrained=pretrained)
        self.width, self.depth = int(self.model.embed_dim), len(self.model.blocks)
        self.stride = int(self.model.patch_embed.patch_size[0])
        colours = self.model.pretrained_cfg
        self.recolour = Recolour(tuple(colours["mean"]), tuple(colours["std"]))

    @classmethod
    def from_config(cls, config: TimmConfig) -> Self:
        """Build the model with fresh weights."""
        return cls(config.name, pretrained=False)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level after the final norm, without class and register tokens."""
        return self._found(images, levels, output_fmt="NCHW")

    def levels(
        self, images: Images, levels: Sequence[int]
    ) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return the tokens of each level as `VisionTransformer.levels` does.

        Register tokens are excluded. For a model without class token, the mean of the patches
        replaces it.
        """
        found = self._found(images, levels, output_fmt="NLC", return_prefix_tokens=True)
        return [self._with_class_token(each) for each in found]

    def forward_intermediates(self, x: Images, *args: Any, **options: Any) -> Any:
        """Call the method of this name of timm's model, in the normalisation of its training."""
        return self.model.forward_intermediates(self.recolour(x), *args, **options)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the training images in pixels."""
        return self.sizes.image_size

    @property
    def sizes(self) -> EncoderConfig:
        """Configuration of a `VisionTransformer` with the same sizes."""
        height, width = self.model.patch_embed.img_size
        return EncoderConfig(
            image_size=(int(height), int(width)),
            patch_size=self.stride,
            width=self.width,
            depth=self.depth,
            heads=int(self.model.blocks[0].attn.num_heads),
            drop_path=0.0,
        )

    def set_drop_path(self, p: float) -> None:
        """Set timm's stochastic depth in the blocks, linear from 0 to `p`."""
        drop_path = importlib.import_module("timm.layers").DropPath
        for index, block in enumerate(self.model.blocks):
            block.drop_path1 = drop_path(p * index / max(self.depth - 1, 1))
            block.drop_path2 = drop_path(p * index / max(self.depth - 1, 1))

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter for layer decay."""
        return super().layer_of(name.removeprefix("model."))

    def _found(self, images: Images, levels: Sequence[int], **options: Any) -> list[Any]:
        wanted = self.resolved(levels)
        # timm returns levels in rising order and counts them from 0.
        rising = sorted({*wanted})
        found = self.model.forward_intermediates(
            self.recolour(images),
            indices=[level - 1 for level in rising],
            norm=True,
            intermediates_only=True,
            **options,
        )
        by_level = dict(zip(rising, found, strict=True))
        return [by_level[level] for level in wanted]

    def _with_class_token(self, found: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        # timm returns prefix tokens (class, registers) separately; without any, only patches.
        patches, prefix = (found, None) if isinstance(found, Tensor) else found
        if prefix is None or self.model.cls_token is None:
            # (batch, patches, dim) -> (batch, 1, dim)
            prefix = patches.mean(dim=1, keepdim=True)
        return torch.cat([prefix[:, :1], patches], dim=1)


def _created(name: str, *, pretrained: bool) -> Any:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        version = torch.__version__.partition("+")[0]  # without the build, such as +cpu
        raise MidwayError(
            f"timm:{name} needs timm ({error}); pip install timm torch=={version}, as pip may "
            "otherwise replace torch to fit the newest torchvision"
        ) from None
    except RuntimeError as error:
        # timm imports torchvision, and its CUDA build fails with a CPU build of torch.
        raise MidwayError(
            f"timm:{name} needs a torchvision that fits torch ({error}); install the build of "
            f"torchvision for torch {torch.__version__}"
        ) from None
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MidwayError(f"timm:{name} cannot be made: {reason}; check the name") from None
    if not all(hasattr(model, part) for part in ("blocks", "patch_embed", "forward_intermediates")):
        raise MidwayError(
            f"timm:{name} is not a plain vision transformer; take one of timm's vit_*"
        )
    _leave_out_pooling(model)
    return model


def _leave_out_pooling(model: Any) -> None:
    """Remove the pooling, and apply the final norm to the tokens."""
    # A model with mean pooling has its final norm after it, as `fc_norm`. Unused parameters would
    # get no gradient, for which DDP fails.
    if isinstance(model.norm, nn.Identity):
        model.norm = getattr(model, "fc_norm", model.norm)
    model.attn_pool, model.fc_norm = None, nn.Identity()


ENCODER = TimmEncoder
