"""Tiny files made for the tests of videos, frames and pairs; a frame is told by its grey."""

import struct
from collections.abc import Callable, Iterator, Sequence
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
    settings: str = "",
    bf: int | None = None,
    rate: int = 10,
    ticks: int = TICKS,
) -> Path:
    """Write one frame at each of `times`, with B-frames where the codec has them.

    `options` are those of the container, `settings` those of x264 or x265, in their own words,
    `bf` the largest number of B-frames in a row. MPEG codecs need `rate` and `ticks` of 25.
    """
    height, width, _ = picture(0).shape
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": str(gop)} | ({} if bf is None else {"bf": str(bf)})
        if codec in ("libx264", "libx265"):
            quiet = "log-level=none:" if codec == "libx265" else ""
            stream.options |= {f"{codec[3:]}-params": quiet + settings}
        stream.codec_context.time_base = Fraction(1, ticks)
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            # With several threads the conversion is not always the same on a loaded machine.
            frame = frame.reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = round(seconds * ticks), Fraction(1, ticks)
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


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every box of an mp4 (ISO 14496-12), those within others too."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, start, start + size
        header = 16 if kind == b"stsd" else 8
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
            yield from boxes(data, start + header, start + size)
        start += size


def encrypt(path: Path) -> Path:
    """Declare the pictures of an mp4 encrypted, as ISO 23001-7 does; their bytes stay."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    scheme = box(b"schm", bytes(4) + b"cenc" + struct.pack(">I", 1 << 16))
    keys = box(b"schi", box(b"tenc", bytes(6) + bytes([1, 8]) + bytes(range(16))))
    added = box(b"sinf", box(b"frma", b"avc1") + scheme + keys)
    data = bytearray(path.read_bytes())
    [(entry, entry_end)] = [(start, end) for kind, start, end in boxes(data) if kind == b"avc1"]
    for _, start, end in list(boxes(data)):
        if start <= entry and entry_end <= end:
            data[start : start + 4] = struct.pack(">I", end - start + len(added))
    data[entry + 4 : entry + 8] = b"encv"
    data[entry_end:entry_end] = added
    path.write_bytes(data)
    return path


def copy_packets(source: Path, target: Path, count: int) -> Path:
    """The first packets of a video in another container, as they are."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in list(old.demux(video=0))[:count]:
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return target


def corners(number: int) -> np.ndarray:
    """Red, green, blue and white quarters: no turn or mirror image looks the same."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32, 0] = image[:24, 32:, 1] = image[24:, :32, 2] = 255
    image[24:, 32:] = 255
    return image


def turn_display(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Put a display matrix into the track header of an mp4 (ISO 14496-12, 8.3.2)."""
    data = path.read_bytes()
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", *(65536 * a, 65536 * b, 0, 65536 * c, 65536 * d, 0, 0, 0, 1 << 30))
    path.write_bytes(data[:start] + matrix + data[start + 36 :])


def waves(number: int) -> np.ndarray:
    """A smooth picture that moves: it survives a lossy codec."""
    y, x = np.mgrid[:96, :128]
    return np.stack(
        [
            128 + 100 * np.sin((x + 3 * number) / 9),
            128 + 100 * np.cos((y - 2 * number) / 7),
            128 + 100 * np.sin((x + y + number) / 11),
        ],
        axis=2,
    ).astype(np.uint8)
