"""Image files of every kind as RGB or as ids, and those that are refused in one line."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from midway.data.clip import BadClipError
from midway.data.images import ID_MODES, MAX_PIXELS, read_ids, read_image
from midway.errors import MidwayError
from tests.data.video.made_videos import cut_short, waves

COLOURS = np.array([[[200, 30, 60], [10, 220, 90]]], np.uint8).repeat(2, 0)


def save(folder: Path, image: Image.Image, name: str = "image.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def test_palette_alpha_and_colour_files_read_alike(tmp_path):
    colour = Image.fromarray(COLOURS)
    palette = colour.quantize(2)
    for path in (
        save(tmp_path, colour),
        save(tmp_path, colour, "image.bmp"),
        save(tmp_path, colour, "image.ppm"),
        save(tmp_path, palette, "palette.png"),
        save(tmp_path, palette, "clear.png", transparency=bytes([0, 255])),
        save(tmp_path, Image.fromarray(np.dstack([COLOURS, COLOURS[..., 0]])), "alpha.png"),
    ):
        np.testing.assert_array_equal(read_image(str(path)), COLOURS)


def test_grey_is_repeated_in_all_channels(tmp_path):
    grey = COLOURS[..., 0]
    expected = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(read_image(str(save(tmp_path, Image.fromarray(grey)))), expected)


def test_a_real_grey_drive_reads_as_rgb(shared_data):
    image = read_image(str(shared_data / "video/kitti_gray_seq1/image_l/000000.png"))
    assert image.shape == (370, 1226, 3)
    assert (image == image[..., :1]).all()


def test_a_camera_held_upright_gives_upright_frames(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    path = save(tmp_path, Image.fromarray(image), "image.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(read_image(str(path)), np.rot90(image, -1), atol=2)


def test_deep_pictures_are_refused_not_squeezed(tmp_path, shared_data):
    deep_grey = save(tmp_path, Image.fromarray(np.full((4, 4), 999, np.uint16)))
    deep_rgb = shared_data / "flow/kitti/flow/000000_10.png"
    for path in (deep_grey, deep_rgb):
        with pytest.raises(BadClipError, match=f"{path}: has more than 8 bits.*; convert"):
            read_image(str(path))


def test_a_frame_that_cannot_be_read_is_named(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    noisy = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cut_png = cut_short(save(tmp_path, Image.fromarray(noisy), "cut.png"), 0.5)
    cut_jpg = cut_short(save(tmp_path, Image.fromarray(noisy), "cut.jpg"), 0.5)
    for path in (text, cut_png, tmp_path / "missing.png"):
        with pytest.raises(BadClipError, match=f"{path}: cannot be read as an image .*; copy it"):
            read_image(str(path))
    with pytest.raises(BadClipError, match=f"{cut_jpg}: is a damaged JPEG .Premature end.*; copy"):
        read_image(str(cut_jpg))


def small_png(path: Path, values: np.ndarray, bits: int, *, size: tuple[int, int] | None = None):
    """Write a grey PNG of 1 to 8 bits; `size` (width, height) belies the header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    digits = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(digits.reshape(len(values), -1), axis=1)
    width, height = size or values.shape[::-1]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )
    return path


IDS = np.arange(30, dtype=np.uint8).reshape(5, 6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits_are_read_as_stored(tmp_path, bits):
    ids = IDS & (2**bits - 1)
    grey = small_png(tmp_path / "grey.png", ids, bits)
    np.testing.assert_array_equal(read_ids(str(grey), ID_MODES), ids)
    palette = Image.fromarray(ids)
    palette.putpalette([1, 2, 3] * 2**bits)
    palette.save(tmp_path / "palette.png", bits=bits)
    np.testing.assert_array_equal(read_ids(str(tmp_path / "palette.png"), ID_MODES), ids)


def test_formats_that_change_ids_are_refused(tmp_path):
    image = Image.fromarray(IDS)
    (tmp_path / "levels.pgm").write_bytes(b"P5\n6 5\n29\n" + IDS.tobytes())
    (tmp_path / "bits.pbm").write_bytes(b"P4\n6 5\n" + bytes(5))
    image.save(tmp_path / "lossy.png", "JPEG")
    image.save(tmp_path / "lossy.webp")
    for name in ("levels.pgm", "bits.pbm", "lossy.png", "lossy.webp"):
        with pytest.raises(BadClipError, match=f"{name}: is .*, which changes ids; save the ids"):
            read_ids(str(tmp_path / name), ID_MODES)
    image.save(tmp_path / "whole.pgm")
    np.testing.assert_array_equal(read_ids(str(tmp_path / "whole.pgm"), ID_MODES), IDS)


def test_ids_that_viewers_turn_are_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save(tmp_path, Image.fromarray(IDS), "turned.png", exif=exif)
    with pytest.raises(BadClipError, match=r"turned\.png: has orientation 3 in its EXIF"):
        read_ids(str(path), ID_MODES)


def test_postscript_of_another_name_starts_no_program(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **_: calls.append(arguments))
    monkeypatch.setattr("subprocess.run", lambda *arguments, **_: calls.append(arguments))
    path = tmp_path / "frame.png"
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\n%%EOF\n"
    )
    for read in (read_image, lambda location: read_ids(location, ID_MODES)):
        with pytest.raises(BadClipError, match=r"frame\.png: cannot be read as an image"):
            read(str(path))
    assert not calls


def test_sizes_beyond_the_limit_are_refused_before_decoding(tmp_path):
    side = int(MAX_PIXELS**0.5)
    for size in ((side + 1, side), (40_000, 40_000)):
        path = small_png(tmp_path / "bomb.png", IDS, 8, size=size)
        for read in (read_image, lambda location: read_ids(location, ID_MODES)):
            with pytest.raises(BadClipError, match=r"bomb\.png: .* pixels") as error:
                read(str(path))
            assert "\n" not in str(error.value)


def jpeg(**options: object) -> bytes:
    """A picture with noise as JPEG."""
    noise = np.random.default_rng(0).integers(-20, 20, (96, 128, 3))
    levels = (waves(0) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", **({"quality": 85} | options))
    return file.getvalue()


KINDS_OF_JPEG = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 8},
    "fine colours": {"subsampling": 0},
}


@pytest.mark.parametrize("options", KINDS_OF_JPEG.values(), ids=KINDS_OF_JPEG)
def test_jpegs_are_decoded_as_by_pillow_and_lost_data_is_noticed(tmp_path, options):
    data, path = jpeg(**options), tmp_path / "a.jpg"
    path.write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_image(str(path)), np.array(image.convert("RGB")))
    start, missed, noticed = data.index(b"\xff\xda") + 20, 0, 0
    for place in np.linspace(start, len(data) - 110, 20).astype(int):
        path.write_bytes(data[:place] + data[place + 100 :])
        try:
            with Image.open(path) as image:
                image.load()
        except OSError:  # Pillow notices this one itself
            continue
        try:
            read_image(str(path))
            missed += 1
        except BadClipError:
            noticed += 1
    # Lost data can leave as many blocks as there should be; then nothing shows it.
    assert noticed > 2 * missed


def test_what_follows_a_jpeg_in_its_file_is_not_read(tmp_path):
    path, data = tmp_path / "a.jpg", jpeg()
    path.write_bytes(data)
    sound = read_image(str(path))
    with path.open("r+b") as file:
        file.truncate(1 << 42)  # sparse; reading it would take terabytes
    np.testing.assert_array_equal(read_image(str(path)), sound)


def test_damage_is_noticed_where_colours_are_converted_by_pillow(tmp_path):
    path = tmp_path / "print.jpg"
    with Image.open(io.BytesIO(jpeg())) as image:
        image.convert("CMYK").save(path, quality=85)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(str(path)), np.array(image.convert("RGB")))
    data = path.read_bytes()
    path.write_bytes(data[:2000] + data[2400:])
    with pytest.raises(BadClipError, match=r"print\.jpg: is a damaged JPEG \("):
        read_image(str(path))


BYTES_OF_CAMERAS = {
    "zeros before the end": lambda data: data[:-2] + bytes(40) + data[-2:],
    "a few bytes before the end": lambda data: data[:-2] + b"\x12" * 12 + data[-2:],
    "a few bytes before a restart": lambda data: data.replace(
        b"\xff\xd1", b"\x12" * 9 + b"\xff\xd1"
    ),
    "junk in the header": lambda data: data.replace(b"\xff\xdb", b"\x12" * 99 + b"\xff\xdb", 1),
    "another version": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\7"),
}


@pytest.mark.parametrize("add", BYTES_OF_CAMERAS.values(), ids=BYTES_OF_CAMERAS)
def test_bytes_that_cameras_add_to_jpegs_are_no_damage(tmp_path, add):
    data = jpeg(restart_marker_blocks=8)
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.jpg").write_bytes(add(data))
    assert add(data) != data
    with pytest.raises(ValueError, match=r"extraneous bytes|unknown JFIF"):
        simplejpeg.decode_jpeg(add(data))
    sound = read_image(str(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(read_image(str(tmp_path / "b.jpg")), sound)
    (tmp_path / "b.jpg").write_bytes(data[:-2] + b"\x12" * 30 + data[-2:])
    with pytest.raises(BadClipError, match=r"extraneous bytes before marker 0xd9\); copy it"):
        read_image(str(tmp_path / "b.jpg"))


def test_damaged_files_raise_no_other_error(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "WEBP", "BMP", "PPM"):
        file = io.BytesIO()
        image.save(file, form, exif=exif)
        for _ in range(60):
            data = np.frombuffer(file.getvalue(), np.uint8).copy()
            data[rng.integers(2, len(data), size=6)] = rng.integers(0, 256, size=6)
            path = tmp_path / "damaged.png"
            path.write_bytes(data[: rng.integers(4, len(data) + 1)].tobytes())
            for read in (read_image, lambda location: read_ids(location, ID_MODES)):
                with suppress(MidwayError):
                    read(str(path))
