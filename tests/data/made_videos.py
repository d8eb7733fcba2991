"""Tiny files made for the tests of videos, frames and pairs; a frame is told by its grey."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

TICKS = 90_000


def grey(number: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A flat frame whose level tells its number, up to 60."""
    return np.full((*size, 3), 4 * number + 8, np.uint8)


def number_of(image: NDArray[np.uint8]) -> int:
    """Number of a frame that `grey` made, after a lossy codec."""
    return round((float(image.mean()) - 8) / 4)


def write_video(
    path: Path,
    times: Sequence[float],
    *,
    picture: Callable[[int], NDArray[np.uint8]] = grey,
    codec: str = "libx264",
    gop: int = 12,
    options: dict[str, str] | None = None,
    title: str = "",
) -> Path:
    """Write one frame at each of `times`, with B-frames where the codec has them."""
    height, width, _ = picture(0).shape
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": str(gop)}
        stream.codec_context.time_base = Fraction(1, TICKS)
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def even_times(count: int, fps: float = 10) -> list[float]:
    return [number / fps for number in range(count)]


def noise(number: int) -> NDArray[np.uint8]:
    """A frame that does not compress: the bytes of a file of these are all pictures."""
    return np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def write_frames(folder: Path, names: Sequence[str]) -> list[Path]:
    """One grey frame for each name, numbered in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(grey(number)).save(folder / name)
    return [folder / name for name in names]


def write_sound(path: Path) -> Path:
    """A second of silence with a cover picture, as music players keep it."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000)
        cover = container.add_stream("mjpeg", rate=1)
        assert isinstance(sound, av.AudioStream)
        assert isinstance(cover, av.VideoStream)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(0), format="rgb24")))
        container.mux(cover.encode(None))
        silence = np.zeros((1, 16_000), np.float32)
        samples = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        samples.sample_rate = 16_000
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


def cut_short(path: Path, share: float) -> Path:
    """Keep only the first `share` of the bytes of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path
