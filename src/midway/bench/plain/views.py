"""Plain view rendering with Pillow, one image at a time.

Operations, their order and the conversion to tensors are those of common PIL and torchvision
pipelines. Crops and factors are arguments, so that both implementations can be compared per view.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from midway.data.views.photometric import BRIGHTNESS, CONTRAST, SATURATION
from midway.data.views.photometric_cpu import ImageColour, each_image
from midway.data.views.spec import ClipSpec, ViewParameters
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]


def plain_views(
    spec: ClipSpec, frames: Sequence[NDArray[np.uint8]], parameters: ViewParameters
) -> list[Tensor]:
    """Render the views of one sample in the order of its parameters, each of shape (3, h, w).

    Args:
        spec: Specification from which the parameters were drawn.
        frames: Images of shape (H, W, 3).
        parameters: Parameters of the sample, from `draw_views`.
    """
    images = [Image.fromarray(frame) for frame in frames]
    boxes = dict(zip(spec.regions, parameters.windows.tolist(), strict=True))
    regions = {name: [_crop(image, box) for image in images] for name, box in boxes.items()}
    crops = [
        (regions[view.region][frame], view.size)
        for view in spec.views.values()
        for frame in range(spec.num_frames)
        for _ in range(view.count)
    ]
    drawn = zip(
        parameters.boxes.tolist(),
        parameters.flip.tolist(),
        each_image(parameters.colour),
        strict=True,
    )
    return [
        _view(window, box, size, flip, colour)
        for (window, size), (box, flip, colour) in zip(crops, drawn, strict=True)
    ]


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
    # A byte covers the whole hue circle, so that the sum wraps correctly.
    turned = np.array(hue) + np.array(round(factor * 255) % 256, dtype=np.uint8)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
