"""Interface of image encoders with dense feature maps, and their descriptions in files."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

from jaxtyping import Float
from torch import Tensor, nn

from midway.config import from_json, to_json
from midway.errors import MidwayError
from midway.registry import available, find

PACKAGE = "midway.models.encoders"
ENCODERS = "encoders"
"""Key of the output of `describe`, in checkpoints and in the header of .safetensors files."""
EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "reg_token", "dist_token", "norm_pre")
"""Names of the parameters before the blocks of a ViT, in timm and here."""
DEFAULT_SIDE = 224
"""Side of the images of encoders whose sizes state none, in pixels."""

Images = Float[Tensor, "batch 3 height width"]
Map = Float[Tensor, "batch channels rows columns"]


class Encoder(nn.Module, ABC):
    """Base of encoders with feature maps, for images of any size divisible by the stride.

    A kind of encoder is one file in this package; its `ENCODER` names the class. `kind` and
    `config` suffice to build the encoder again.
    """

    kind: ClassVar[str]
    """Name of its file in this package."""
    Config: ClassVar[type]
    """Frozen dataclass of its sizes, convertible to JSON."""
    config: Any
    """An instance of `Config`."""
    width: int
    """Channels of the map at the top level."""
    depth: int
    """Number of levels, which count from 1."""
    stride: int
    """Stride in pixels; the sides of an image must be multiples of it."""
    has_final_norm: ClassVar[bool] = True
    """True if `maps` applies the norm above the last block at every level."""

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Build the encoder with fresh weights, drawn from torch's generator."""
        return cls(config)

    @classmethod
    def read_config(cls, tensors: Mapping[str, Tensor], *, heads: int | None) -> Any | None:
        """Infer the sizes from the tensors of a file without configuration.

        Args:
            tensors: By their names in the file.
            heads: Attention heads, if known.

        Returns:
            The configuration, or None if the tensors are of another kind.

        """
        return None

    @abstractmethod
    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level, in the order of `levels`.

        Args:
            images: ImageNet-normalised; sides are multiples of `stride`.
            levels: 1-based; negative levels count from the top, which is -1.

        Raises:
            MidwayError: A level does not exist.

        """

    def forward_intermediates(
        self,
        x: Images,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return feature maps in the form of timm's method of this name.

        Args:
            x: ImageNet-normalised images; sides are multiples of `stride`.
            indices: Blocks from 0, in timm's counting: a level less 1, or negative from the top; an
                int takes the last n, None all.
            return_prefix_tokens: If True, return pairs of a map and the class and register tokens,
                for encoders that have these.
            norm: If True, apply the final norm to the intermediate maps too.
            stop_early: If True, compute no block above the highest index.
            output_fmt: Maps (batch, channels, rows, columns), or tokens (batch, patches, channels).
            intermediates_only: If True, return the maps only.

        Returns:
            The final output, and one map per index in rising order; or only the maps.

        Raises:
            MidwayError: An index or the format does not exist, or the encoder cannot return its
                maps in this form.

        """
        levels = taken_levels(indices, self.depth)
        if return_prefix_tokens or norm != self.has_final_norm:
            raise MidwayError(
                f"forward_intermediates: a {self.kind} has no prefix tokens and its maps come with "
                f"norm={self.has_final_norm}; give that"
            )
        top = levels[-1] if stop_early else self.depth
        *maps, last = self.maps(x, (*levels, top))
        found = [in_format(each, output_fmt) for each in maps]
        return found if intermediates_only else (last, found)

    @abstractmethod
    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth for training: linear from 0 (first block) to `p` (last block).

        Raises:
            MidwayError: The kind of encoder has no stochastic depth, or cannot be finetuned.

        """

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the training images in pixels; 224 if the sizes state none."""
        return getattr(self.config, "image_size", (DEFAULT_SIDE, DEFAULT_SIDE))

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter for layer decay: 0 for the embeddings, then the blocks.

        Args:
            name: Name in `named_parameters`; the base class knows those of timm's ViT.

        Returns:
            Layer; ``depth + 1`` for parameters above the blocks, as for heads.

        """
        if name.startswith(EMBEDDINGS):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else self.depth + 1

    def widths(self, levels: Sequence[int]) -> list[int]:
        """Return the channels of the maps at these levels."""
        return [self.width] * len(levels)

    def strides(self, levels: Sequence[int]) -> list[int]:
        """Return the strides of the maps at these levels, in pixels per cell."""
        return [self.stride] * len(levels)

    def resolved(self, levels: Sequence[int]) -> list[int]:
        """Convert negative levels to 1-based ones.

        Raises:
            MidwayError: A level does not exist.

        """
        found = [level if level > 0 else self.depth + 1 + level for level in levels]
        if not all(1 <= level <= self.depth for level in found):
            # As many, spread evenly; some twice if the encoder has fewer.
            spread = [math.ceil(n * self.depth / len(found)) for n in range(1, len(found) + 1)]
            raise MidwayError(
                f"levels {tuple(levels)}: the encoder has levels 1 to {self.depth}; choose "
                f"from those, such as {' '.join(map(str, spread))}"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Description of an encoder in a checkpoint or an exported file."""

    kind: str
    config: dict[str, Any]
    """Configuration as JSON values."""
    prefix: str = ""
    """Prefix of its tensor names in the state dict of the file."""

    def build(self, *, where: str) -> Encoder:
        """Build the encoder with fresh weights, drawn from torch's generator.

        Raises:
            MidwayError: There is no such kind, or it refuses the sizes; the message names `where`.

        """
        return build_kind(PACKAGE, "ENCODER", self, where=where)


def build_kind(package: str, attribute: str, spec: EncoderSpec, *, where: str) -> Any:
    """Build the network of a description; its kind is a module of `package`, which has the class.

    Args:
        package: Package with one file per kind.
        attribute: Name by which each module gives its class.
        spec: The description.
        where: Name of the file, for error messages.

    Raises:
        MidwayError: There is no such kind, or it refuses the sizes.

    """
    try:
        kind = getattr(find(package, spec.kind), attribute)
        config = from_json(kind.Config, spec.config, where="its sizes")
    except MidwayError as error:
        # Several faults come on several lines; errors of files are one line.
        raise MidwayError(f"{where}: {' '.join(str(error).split())}") from None
    return kind.from_config(config)


class Described(Protocol):
    """Interface of networks that are described by their kind and sizes."""

    kind: ClassVar[str]
    config: Any


def describe(module: nn.Module, encoders: Mapping[str, Described]) -> dict[str, dict[str, Any]]:
    """Describe encoders that are parts of a module, as JSON values by name.

    Args:
        module: Module with the state dict to which the prefixes refer.
        encoders: Encoders by name; `module` itself may be one.

    """
    # By identity, because an encoder does not know its name in the module.
    places = {id(part): name for name, part in module.named_modules()}
    found = {
        name: EncoderSpec(
            kind=encoder.kind,
            config=to_json(encoder.config),
            prefix=f"{places[id(encoder)]}." if places[id(encoder)] else "",
        )
        for name, encoder in encoders.items()
    }
    return {name: to_json(spec) for name, spec in found.items()}


def recognise(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> EncoderSpec | None:
    """Infer kind and sizes of an encoder from its tensors; None if no kind matches."""
    for name in available(PACKAGE):
        config = find(PACKAGE, name).ENCODER.read_config(tensors, heads=heads)
        if config is not None:
            return EncoderSpec(kind=name, config=to_json(config))
    return None


def taken_levels(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Convert indices of timm's `forward_intermediates` to levels, which rise from 1.

    Raises:
        MidwayError: An index does not exist.

    """
    if isinstance(indices, int):
        indices = range(-indices, 0)
    places = range(depth) if indices is None else indices
    levels = sorted({(depth if place < 0 else 0) + place + 1 for place in places})
    if not levels or not 1 <= levels[0] <= levels[-1] <= depth:
        raise MidwayError(
            f"indices {indices}: the encoder has blocks 0 to {depth - 1}; choose from those"
        )
    return levels


def in_format(found: Map, output_fmt: str) -> Tensor:
    """Return a map, or its cells in row-major order: timm's formats NCHW and NLC.

    Raises:
        MidwayError: There is no such format.

    """
    if output_fmt not in ("NCHW", "NLC"):
        raise MidwayError(f"output_fmt '{output_fmt}': unknown; give NCHW or NLC")
    # (batch, dim, rows, columns) -> (batch, rows * columns, dim)
    return found if output_fmt == "NCHW" else found.flatten(2).transpose(1, 2)


def patch_grid(images: Images, patch_size: int) -> tuple[int, int]:
    """Return rows and columns of patches in images of this size.

    Raises:
        MidwayError: There is no batch, or the sides are not multiples of the patch size.

    """
    if images.ndim != 4:
        raise MidwayError(
            f"images of shape {tuple(images.shape)}; give (batch, 3, height, width), for one image "
            "image[None]"
        )
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise MidwayError(
            f"image of {height}x{width} pixels: sides must be multiples of the patch size "
            f"{patch_size}; crop or resize it"
        )
    return height // patch_size, width // patch_size


def as_map(
    patches: Float[Tensor, "batch patches dim"], images: Images, stride: int
) -> Float[Tensor, "batch dim rows columns"]:
    """Arrange patches, which are in row-major order, as a map."""
    rows, columns = images.shape[-2] // stride, images.shape[-1] // stride
    # (batch, rows * columns, dim) -> (batch, dim, rows, columns)
    return patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
