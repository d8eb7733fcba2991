"""Generated videos for the data benchmark: a camera that moves over a textured plane."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FPS, SECONDS = 1280, 720, 30, 40
_MARGIN = 320
"""Largest distance of the camera from the plane's centre along each axis, in pixels."""


def make_clip(path: Path, *, gop: int, seed: int, seconds: float = SECONDS) -> None:
    """Write a 1280x720 H.264 video at 30 fps with x264's defaults except for the keyframes.

    The camera moves over a plane with the spectrum of natural images, on which patches move
    independently. The bit rate is that of a dashcam, about 4 Mbit/s.

    Args:
        path: Output file, ending in ``.mp4``.
        gop: Number of frames from one keyframe to the next.
        seed: Seed of the texture and the patches' motion.
        seconds: Length of the video.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {
            "g": str(gop),
            "keyint_min": str(gop),
            "sc_threshold": "0",
            "preset": "veryfast",
        }
        for image in _frames(np.random.default_rng(seed), round(seconds * FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def _frames(rng: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    plane = _texture(rng, HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN)
    patches = [_texture(rng, size, size) for size in (60, 90, 120, 160, 200, 260)]
    phases = rng.uniform(0, 2 * np.pi, (len(patches), 2))
    rates = rng.uniform(0.2, 0.9, (len(patches), 2))
    for number in range(count):
        turn = 2 * np.pi * number / count
        top = round(_MARGIN * (1 + 0.9 * np.sin(2 * turn)))
        left = round(_MARGIN * (1 + 0.9 * np.cos(3 * turn)))
        image = plane[top : top + HEIGHT, left : left + WIDTH].copy()
        for patch, phase, rate in zip(patches, phases, rates, strict=True):
            size = len(patch)
            place = 0.5 + 0.5 * np.sin(phase + rate * number / FPS)
            y, x = (place * (HEIGHT - size, WIDTH - size)).astype(int)
            image[y : y + size, x : x + size] = patch
        yield image


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return an RGB image with the spectrum and the saturation of natural images."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    falloff = np.maximum(np.hypot(rows, columns), 1 / width) ** -1.25
    spectrum = np.fft.rfft2(rng.standard_normal((4, height, width))) * falloff
    grey, *colours = np.fft.irfft2(spectrum, s=(height, width))
    picture = np.stack([grey + 0.3 * colour for colour in colours], axis=-1)
    picture = 128 + 48 * (picture - picture.mean()) / picture.std()
    return np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
