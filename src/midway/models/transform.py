"""Input of an encoder from images of any kind: resizing, cropping and normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.nn.images import normalise

CROP = 0.875
"""Side of the central crop as a fraction of the resized shorter side: 224 of 256 pixels."""


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Callable that converts images to the input of an encoder; see `transform`."""

    size: tuple[int, int]
    """Height and width of the crop in pixels; without a crop, the shorter one is that of the
    resized image."""
    stride: int
    """Without a crop, both sides are rounded to multiples of it."""
    crop: bool

    def __call__(self, images: Any) -> Float[Tensor, "*batch 3 height width"]:
        """Convert an image, a batch or a video.

        Args:
            images: A PIL image; an RGB array (..., height, width, 3) of numpy; a tensor (..., 3,
                height, width) of torch, on any device; a frame of PyAV, or frames of torchcodec; or
                a list of these. Values are bytes, or floats from 0 to 1.

        Returns:
            ImageNet-normalised float32 images with the leading dimensions of the input, one more
            for a list.

        Raises:
            MidwayError: The input is none of these, or images of a list differ in size without
                a crop.

        """
        if isinstance(images, list | tuple):
            made = [self(image) for image in images]
            if len({each.shape for each in made}) != 1:
                raise MidwayError(
                    f"images: {len({each.shape for each in made})} sizes in a list of "
                    f"{len(made)}; give images of one size, or crop"
                )
            return torch.stack(made)
        pixels = _pixels(images)
        batch = pixels.shape[:-3]
        resized = self._resized(pixels.reshape(-1, *pixels.shape[-3:]))
        return normalise(resized).reshape(*batch, *resized.shape[1:])

    def _resized(self, pixels: Float[Tensor, "batch 3 height width"]) -> Tensor:
        height, width = pixels.shape[-2:]
        if not self.crop:
            factor = min(self.size) / min(height, width)
            rows, columns = (max(1, round(s * factor / self.stride)) for s in (height, width))
            return _resize(pixels, (rows * self.stride, columns * self.stride))
        # The smallest size that holds the crop with a margin on each side.
        factor = max(self.size[0] / height, self.size[1] / width) / CROP
        sides = tuple(
            max(c, round(s * factor)) for s, c in zip((height, width), self.size, strict=True)
        )
        top, left = ((s - c) // 2 for s, c in zip(sides, self.size, strict=True))
        resized = _resize(pixels, (sides[0], sides[1]))
        return resized[..., top : top + self.size[0], left : left + self.size[1]]


class HasEncoder(Protocol):
    """A network with an encoder, such as Midway's."""

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        ...


def transform(
    encoder: Encoder | HasEncoder,
    *,
    size: int | tuple[int, int] | None = None,
    crop: bool = True,
) -> Transform:
    """Return the conversion of images to the input of an encoder.

    It resizes (bicubic, antialiased), crops the centre, and normalises by ImageNet's mean and
    standard deviation. Encoders trained with other values convert their input themselves.

    Args:
        encoder: Encoder that will get the images, or a network.
        size: Height and width of the crop in pixels, or one number for both; by default the
            training size of the encoder.
        crop: If False, keep the whole image: its shorter side is resized to the smaller `size`, and
            both sides are rounded to multiples of the stride.

    Raises:
        MidwayError: The size is not a multiple of the encoder's stride.

    Examples:
        >>> import midway
        >>> encoder = midway.load_encoder("synthetic-tiny")
        >>> inputs = midway.transform(encoder)(np.zeros((60, 80, 3), np.uint8))
        >>> inputs.shape
        torch.Size([3, 48, 48])

    """
    if not isinstance(encoder, Encoder):
        encoder = encoder.encoder
    if size is None:
        # Training sizes of other people's encoders need not be multiples of the stride.
        sides = [max(1, side // encoder.stride) * encoder.stride for side in encoder.image_size]
    else:
        sides = [size, size] if isinstance(size, int) else [*size]
    height, width = sides
    if min(sides) < 1 or height % encoder.stride or width % encoder.stride:
        raise MidwayError(
            f"size {height} x {width}: not a multiple of the encoder's stride {encoder.stride}; "
            f"give one like {encoder.stride * max(1, round(height / encoder.stride))}"
        )
    return Transform(size=(height, width), stride=encoder.stride, crop=crop)


def _pixels(images: Any) -> Float[Tensor, "*batch 3 height width"]:
    """Return images as float32 from 0 to 1."""
    if isinstance(images, Image.Image):
        # Photographs may be stored lying down.
        images = np.asarray(ImageOps.exif_transpose(images).convert("RGB"))
    elif hasattr(images, "to_ndarray"):
        images = images.to_ndarray(format="rgb24")
    elif isinstance(getattr(images, "data", None), Tensor) and not isinstance(images, Tensor):
        images = images.data
    if isinstance(images, np.ndarray):
        _check_shape(images.shape, -1, "an array (..., height, width, 3)")
        # A copy, because torch takes neither read-only arrays nor mirrored ones.
        images = torch.from_numpy(np.array(images)).movedim(-1, -3)
    elif isinstance(images, Tensor):
        _check_shape(images.shape, -3, "a tensor (..., 3, height, width)")
    else:
        raise MidwayError(
            f"images: {type(images).__name__} is no image; give one of PIL, numpy or torch, or a "
            "list of them"
        )
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise MidwayError(f"images: values are {images.dtype}; give uint8, or floats from 0 to 1")
    pixels = images.float()
    if not (pixels.amin() >= 0 and pixels.amax() <= 1):
        raise MidwayError(
            "images: floats are not from 0 to 1; divide them by the value of white, such as 255, "
            "and do not normalise them"
        )
    return pixels


def _check_shape(shape: Sequence[int], channels: int, wanted: str) -> None:
    if len(shape) < 3 or shape[channels] != 3 or 0 in shape:
        raise MidwayError(f"images: shape {tuple(shape)}; give {wanted} with RGB channels")


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if size == pixels.shape[-2:]:
        return pixels
    # Bicubic interpolation overshoots at edges.
    return F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp_(0, 1)
