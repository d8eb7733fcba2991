"""Files on a full disk: the error names them, the old one stays, and nothing half is left."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway.atomic import write_atomically, write_picture
from midway.data.flow.files import write_flow
from midway.data.video.writer import writing_video
from midway.errors import MidwayError
from midway.evals.readouts.flow import _write_line

NOISE = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow beyond 4 kB, which the system reports like a full disk, while one writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_noise(path: Path) -> None:
    if path.suffix in (".flo", ".pfm", ".npy"):
        write_flow(path, NOISE[..., :2].astype(np.float32))
    elif path.suffix in (".mp4", ".mkv"):
        with writing_video(path, 10) as write:
            for _ in range(30):
                write(NOISE)
    else:
        write_picture(path, Image.fromarray(NOISE))


def refused(folder: Path, name: str) -> None:
    """See that the error named the file and that only the file of before is there."""
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_bytes() == b"before"


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(bytes(100_000)),
        lambda file: [file.write(bytes(100)) for _ in range(1000)],
        lambda file: torch.save({"weights": torch.zeros(100_000)}, file),
    ],
)
def test_a_full_disk_is_an_error_of_the_file_that_leaves_the_one_of_before(tmp_path, write):
    path = tmp_path / "file.ckpt"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="File too large") as error:
        write_atomically(path, write)
    assert error.value.filename == str(path)
    refused(tmp_path, path.name)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".ppm", ".bmp", ".flo", ".pfm", ".npy"])
def test_pictures_and_flow_are_complete_or_absent(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="File too large") as error:
        write_noise(path)
    assert error.value.filename == str(path)
    refused(tmp_path, path.name)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_is_complete_or_absent_and_named_by_its_final_name(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="File too large") as error:
        write_noise(path)
    assert error.value.filename == str(path)
    refused(tmp_path, path.name)


def test_a_video_without_a_folder_is_an_error_that_names_the_video(tmp_path):
    path = tmp_path / "nowhere" / "x.mp4"
    message = rf"^{path}: cannot be written \(No such file"
    with pytest.raises(MidwayError, match=message), writing_video(path, 10):
        pass


def test_pictures_have_the_format_of_their_suffix_and_others_are_refused(tmp_path):
    for suffix, name in ((".png", "PNG"), (".JPG", "JPEG"), (".ppm", "PPM"), (".webp", "WEBP")):
        write_picture(tmp_path / f"x{suffix}", Image.fromarray(NOISE))
        with Image.open(tmp_path / f"x{suffix}") as image:
            assert (image.format, image.size) == (name, (96, 96))
    with pytest.raises(MidwayError, match=r"x\.nosuch: cannot be written .*ends in \.png"):
        write_picture(tmp_path / "x.nosuch", Image.fromarray(NOISE))


def test_the_validation_log_is_rewritten_as_a_whole(tmp_path, full_disk):
    path = tmp_path / "validation.jsonl"
    path.write_text('{"step": 1}\n{"st')
    _write_line(path, {"step": 2})
    with pytest.raises(OSError, match="File too large"):
        _write_line(path, {"step": 3, "text": "x" * 8000})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
