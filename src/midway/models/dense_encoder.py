"""Encoders as givers of feature maps, which is all that a dense readout asks of one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.errors import MidwayError
from midway.models.dynamics import TargetSide
from midway.models.vit import VisionTransformer
from midway.nn.blocks import Block

Images = Float[Tensor, "batch 3 height width"]
Map = Float[Tensor, "batch channels rows columns"]
EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre")
"""Names, in timm and here, of what is before the blocks."""


class DenseEncoder(nn.Module, ABC):
    """Feature maps of images of any size that the patch size divides.

    The names of its parameters are timm's behind the first dot: ``patch_embed``, ``blocks.3``.
    """

    width: int
    """Channels of a map."""
    depth: int
    """Levels: 1 to `depth`."""
    patch_size: int

    @abstractmethod
    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """One map a level, in the order wanted.

        Args:
            images: ImageNet-normalised; sides are multiples of the patch size.
            levels: 1-based; negative ones count from the top, which is -1.

        Raises:
            MidwayError: A level that there is not.

        """

    @abstractmethod
    def set_drop_path(self, p: float) -> None:
        """Let the last block be dropped with probability `p` in training, the first never."""

    def layer_of(self, name: str) -> int:
        """Place of a parameter for layer decay: 0 the embeddings, then the blocks from 1.

        Args:
            name: As `named_parameters` gives it.

        Returns:
            ``depth + 1`` for what is behind the blocks, as for heads.

        """
        part = name.partition(".")[2]
        if part.startswith(EMBEDDINGS):
            return 0
        if part.startswith("blocks."):
            return int(part.split(".")[1]) + 1
        return self.depth + 1

    def resolved(self, levels: Sequence[int]) -> list[int]:
        """Levels counted from 1 alone.

        Raises:
            MidwayError: A level that there is not.

        """
        found = [level if level > 0 else self.depth + 1 + level for level in levels]
        if not all(1 <= level <= self.depth for level in found):
            raise MidwayError(
                f"levels {tuple(levels)}: the encoder has levels 1 to {self.depth}; choose "
                "from those"
            )
        return found


class VitEncoder(DenseEncoder):
    """Features of a ViT after its blocks, the final norm applied to each level."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.width, self.depth = vit.config.width, vit.config.depth
        self.patch_size = vit.config.patch_size

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """One map a level, without the class token."""
        tokens = self.vit.levels(images, self.resolved(levels))
        return [as_map(x[:, 1:], images, self.patch_size) for x in tokens]

    def set_drop_path(self, p: float) -> None:
        """Stochastic depth that grows linearly with the blocks."""
        for index, block in enumerate(self.vit.blocks):
            assert isinstance(block, Block)
            block.drop_path.p = p * index / max(self.depth - 1, 1)


class BackwardEncoder(DenseEncoder):
    """Backward features v of Midway: each level refined by those above; the top is z itself.

    Args:
        vit: The encoder.
        side: Student's dynamics or teacher, whose backward layers are taken.

    Raises:
        MidwayError: The network has no backward layers.

    """

    def __init__(self, vit: VisionTransformer, side: TargetSide) -> None:
        super().__init__()
        if not side.backward_layers:
            raise MidwayError(
                "no backward features: the network was trained without backward layers; take "
                "--features encoder"
            )
        self.vit = vit
        self.refine = side.backward_layers
        self.width, self.depth = vit.config.width, vit.config.depth
        self.patch_size = vit.config.patch_size

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """One map a level of the dynamics, or the top, without the class token.

        Raises:
            MidwayError: A level that there is not.

        """
        wanted = self.resolved(levels)
        present = sorted(map(int, self.refine))
        if not {*wanted} <= {*present, self.depth}:
            known = ", ".join(map(str, (*present, self.depth)))
            raise MidwayError(
                f"levels {tuple(levels)}: the network has backward features at {known}; "
                "choose from those"
            )
        *features, above = self.vit.levels(images, (*present, self.depth))
        found = {self.depth: above}
        for level, z in reversed([*zip(present, features, strict=True)]):
            found[level] = above = self.refine[str(level)](z, above)
        return [as_map(found[level][:, 1:], images, self.patch_size) for level in wanted]

    def set_drop_path(self, p: float) -> None:
        """Refuse: backward features are read from frozen networks.

        Raises:
            MidwayError: Always.

        """
        raise MidwayError("backward features cannot be finetuned; take --features encoder")


def as_map(
    patches: Float[Tensor, "batch patches dim"], images: Images, patch_size: int
) -> Float[Tensor, "batch dim rows columns"]:
    """Patches of images, row by row, as a map."""
    rows, columns = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    return patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of the names and values of all tensors of a module, whatever file they were in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
