"""Opening of image files from anywhere: listed formats, bounded size, every error in one line."""

import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from midway.data.clip import BadClipError
from midway.data.files import open_binary
from midway.errors import MidwayError

FORMATS = ("PNG", "JPEG", "PPM", "WEBP", "BMP")
"""Formats that Pillow may try; without a list it starts Ghostscript for PostScript of any name."""
MAX_PIXELS = 2**26
"""Maximum pixels of an image, 8192 x 8192; a small file can contain very many."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""
EXIF_ORIENTATION = 0x0112
_JPEG_DAMAGE = re.compile(r"Corrupt JPEG data: (?P<reason>.*)|Premature end of JPEG file")
"""Warnings of libjpeg-turbo about damaged data."""
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_FIRST_RESTART, _END = 0xD0, 0xD9  # markers (ITU-T T.81, table B.1)
_HEADER_BYTES, _BYTES_PER_PIXEL = 2**24, 4
"""Largest size of a JPEG: that of its profiles and previews, and that of its data."""
_PADDING_BYTES = 12
"""Largest number of bytes between the data and a marker that count as padding."""
_EIGHT_BIT_MODES = frozenset(
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
_STRETCH = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow multiplies grey levels of less than 8 bits, by raw mode."""
ID_MODES = ("1", "L", "P", "RGB", "RGBA", "LA")
"""Modes of images of ids: grey, palette, and colours that are grey."""
KINDS = {
    "P": "a palette image",
    "I": "16 bits deep",
    "I;16": "16 bits deep",
    "RGB": "a colour picture",
    "RGBA": "a colour picture",
}
"""Description of files of other modes."""
REMEDIES = {
    "P": "save its indices as 8-bit grey",
    "RGB": "give the folder of the class ids, not of the colour maps",
    "RGBA": "give the folder of the class ids, not of the colour maps",
}


@contextmanager
def open_image(location: str, file: BinaryIO | None = None) -> Iterator[ImageFile]:
    """Open an image whose pixels are decoded on demand.

    Args:
        location: Path or URL, named in errors.
        file: Contents, if they are not to be read from `location`.

    Raises:
        BadClipError: The file cannot be read as an image, here or in the enclosed block, or is too
            large.
    """
    try:
        with (
            open_binary(location) if file is None else file as data,
            _without_warnings(),
            Image.open(data, formats=FORMATS) as picture,
        ):
            if picture.width * picture.height > MAX_PIXELS:
                raise BadClipError(
                    location,
                    f"has {picture.width} x {picture.height} pixels, above {MAX_PIXELS}",
                    "make it smaller or remove it",
                )
            yield picture
    except MidwayError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadClipError(
            location, f"cannot be read as an image ({reason})", "copy it again or remove it"
        ) from error


def read_image(location: str, file: BinaryIO | None = None) -> NDArray[np.uint8]:
    """Read an 8-bit image as upright RGB (height, width, 3); grey is repeated, alpha dropped.

    Args:
        location: Path or URL, named in errors.
        file: Contents, if they are not to be read from `location`.

    Raises:
        BadClipError: The file is not an image, is truncated or damaged, or has more than 8 bits per
            channel.
    """
    with open_image(location, file) as picture:
        refuse_depth(picture, location)
        image = ImageOps.exif_transpose(undamaged(picture, location))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image.convert("RGB"))


def read_labelled(location: str) -> Image.Image:
    """Read an 8-bit image as RGB, of the same orientation as its labels or depth.

    Raises:
        BadClipError: The file cannot be read, is damaged, has more than 8 bits, or is turned by its
            EXIF.
    """
    with open_image(location) as picture:
        # Before EXIF is read, as this loads a PNG, which then no longer states its depth.
        refuse_depth(picture, location)
        refuse_orientation(picture, location)
        return undamaged(picture, location).convert("RGB")


def undamaged(picture: ImageFile, location: str) -> Image.Image:
    """Return an image after a check for damage that Pillow ignores.

    Pillow decodes a JPEG with damaged data without an error. libjpeg-turbo, which it uses too,
    counts a warning, and simplejpeg makes an error of it.

    Raises:
        BadClipError: The image is a damaged JPEG.
    """
    if picture.format not in ("JPEG", "MPO"):
        return picture
    import simplejpeg

    data = _jpeg_bytes(picture)
    try:
        decoded = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        # Other warnings are harmless, such as an unknown version, or Pillow fails as well.
        damage = _JPEG_DAMAGE.search(str(error))
        reason = (damage["reason"] or damage[0]) if damage else ""
        if reason and not _is_harmless(reason, data, "progressive" in picture.info):
            raise BadClipError(
                location, f"is a damaged JPEG ({reason})", "copy it again or remove it"
            ) from error
        return picture
    if picture.mode not in ("L", "RGB"):
        return picture  # colours of other modes are converted differently
    image = Image.fromarray(decoded)
    image.info = picture.info
    return image


def _jpeg_bytes(picture: ImageFile) -> bytes:
    file = picture.fp
    assert file is not None
    place = file.tell()
    file.seek(0)
    # Phones append videos to pictures, and a sparse file may pretend to hold terabytes.
    data = file.read(_HEADER_BYTES + _BYTES_PER_PIXEL * picture.width * picture.height)
    file.seek(place)
    return data


def _is_harmless(warning: str, data: bytes, is_progressive: bool) -> bool:
    """Return whether a warning is about bytes that cameras add to JPEGs that are not damaged.

    Some webcams write a few bytes before restart markers, others pad the end with zeros, and the
    headers of some network cameras contain junk.
    """
    extraneous = _EXTRANEOUS.fullmatch(warning)
    if extraneous is None:
        return False
    count, marker = int(extraneous[1]), int(extraneous[2], 16)
    is_in_header = not is_progressive and not _FIRST_RESTART <= marker <= _END
    end = data.rfind(bytes([0xFF, _END]))
    return count <= _PADDING_BYTES or is_in_header or not any(data[end - count : end])


def read_ids(location: str, modes: Collection[str]) -> NDArray[np.uint8]:
    """Read the numbers that an image of classes or objects stores.

    Args:
        location: Path or URL.
        modes: Accepted modes of Pillow, some of `ID_MODES`.

    Returns:
        Palette indices or grey levels (height, width) as stored, also with less than 8 bits;
        colours (height, width, 3) of other modes.

    Raises:
        BadClipError: The file is not an image, is lossy, is turned by its EXIF, or has another
            mode.
    """
    with _open_ids(location, modes) as (picture, raw):
        if picture.mode not in ("1", "L", "P"):
            return np.array(picture.convert("RGB"))
        return np.array(picture).astype(np.uint8) // _STRETCH.get(raw, 1)


def read_colours(location: str) -> NDArray[np.uint8]:
    """Read the colours of an image of classes, also those of a palette, as RGB (height, width, 3).

    Raises:
        BadClipError: The file is not an image, is lossy, is turned by its EXIF, or has more than
            8 bits per channel.
    """
    with _open_ids(location, ID_MODES) as (picture, _):
        return np.array(picture.convert("RGB"))


@contextmanager
def _open_ids(location: str, modes: Collection[str]) -> Iterator[tuple[ImageFile, str]]:
    """Open an image whose values are exact; gives Pillow's raw mode too."""
    with open_image(location) as picture:
        codec, raw = (picture.tile[0][0], str(picture.tile[0][3])) if picture.tile else ("", "")
        # Pillow stretches the levels of a grey map to 255, and inverts those of a bit map.
        changed = picture.format == "PPM" and (codec != "raw" or picture.mode == "1")
        if picture.format in ("JPEG", "MPO", "WEBP") or changed:
            raise BadClipError(
                location, f"is {picture.format}, which changes ids", "save the ids as PNG"
            )
        refuse_orientation(picture, location)
        mode = "I" if ";16" in raw else picture.mode
        if mode not in modes:
            kind = KINDS.get(mode, f"of mode {mode}")
            remedy = REMEDIES.get(mode, "save it as 8-bit grey")
            raise BadClipError(location, f"holds no 8-bit ids: the file is {kind}", remedy)
        yield picture, raw


def refuse_orientation(picture: ImageFile, location: str) -> None:
    """Refuse an image that viewers rotate, because its labels may not be rotated with it.

    Raises:
        BadClipError: EXIF has another orientation than upright.
    """
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    if orientation not in (0, 1):
        raise BadClipError(
            location,
            f"has orientation {orientation} in its EXIF, so image and ids may differ by a turn",
            "turn the pixels as the ids are, and remove the tag",
        )


def refuse_depth(picture: ImageFile, location: str) -> None:
    """Refuse an image of more than 8 bits, which Pillow would clip or reduce.

    Raises:
        BadClipError: The image has more than 8 bits per channel.
    """
    deep = any(";16" in str(tile[3]) for tile in picture.tile)
    if deep or picture.mode not in _EIGHT_BIT_MODES:
        raise BadClipError(
            location, "has more than 8 bits per channel", "convert it to 8 bits or remove it"
        )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warning of large images, which are refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
