"""The views of a pair as per-image code usually makes them, with Pillow: what ours is held against.

The operations, their order and the way into a tensor are those of common PIL and torchvision
pipelines; the crops and factors are given, so that both ways can be compared view by view.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from midway.data.colour import IMAGENET_MEAN, IMAGENET_STD
from midway.data.colour_cpu import ImageColour, each_image
from midway.data.distortion import BRIGHTNESS, CONTRAST, SATURATION
from midway.data.views import ViewParameters, ViewsConfig

MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]


def plain_views(
    config: ViewsConfig,
    source: NDArray[np.uint8],
    target: NDArray[np.uint8],
    parameters: ViewParameters,
) -> list[Tensor]:
    """The views of one pair in the order of `midway.data.views`, each of shape (3, h, w).

    Args:
        config: The one that the parameters were drawn with.
        source: First frame, shape (H, W, 3).
        target: Second frame, of the same shape.
        parameters: Those of the pair, from `draw_views`.
    """
    frames = [Image.fromarray(source), Image.fromarray(target)]
    motion, initial = (
        [_crop(frame, box) for frame in frames] for box in parameters.windows.tolist()
    )
    locals_ = config.num_local
    windows = motion + [initial[0]] * 2 + [initial[1]] * 2
    windows += [initial[0]] * locals_ + [initial[1]] * locals_
    sizes = [config.motion_size] * 2 + [config.global_size] * 4
    sizes += [config.local_size] * (2 * locals_)
    views = zip(
        windows,
        parameters.boxes.tolist(),
        sizes,
        parameters.flip.tolist(),
        each_image(parameters.colour),
        strict=True,
    )
    return [_view(*view) for view in views]


def _view(
    window: Image.Image, box: list[int], size: tuple[int, int], flip: bool, colour: ImageColour
) -> Tensor:
    image = _crop(window, box).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if colour.jitter:
        for which in colour.order:
            image = _jitter(image, which, colour.factors[which])
    if colour.grey:
        image = image.convert("L").convert("RGB")
    if colour.blur_sigma > 0:
        image = image.filter(ImageFilter.GaussianBlur(colour.blur_sigma))
    if colour.solarise:
        image = ImageOps.solarize(image, 128)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div_(255).sub_(MEAN).div_(STD)


def _crop(image: Image.Image, box: list[int]) -> Image.Image:
    top, left, height, width = box
    return image.crop((left, top, left + width, top + height))


def _jitter(image: Image.Image, which: int, factor: float) -> Image.Image:
    if which == BRIGHTNESS:
        return ImageEnhance.Brightness(image).enhance(factor)
    if which == CONTRAST:
        return ImageEnhance.Contrast(image).enhance(factor)
    if which == SATURATION:
        return ImageEnhance.Color(image).enhance(factor)
    hue, saturation, value = image.convert("HSV").split()
    # A byte holds the whole circle, so it wraps by itself.
    turned = np.array(hue) + np.array(round(factor * 255) % 256, dtype=np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
