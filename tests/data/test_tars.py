"""Members of tar files: all of them, under one name, or an error."""

import io
import tarfile
from pathlib import Path

import pytest

from midway.data.clips.roots import files_of
from midway.errors import MidwayError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.mp4")
            member.size = 1000
            file.addfile(member, io.BytesIO(bytes(1000)))
    return path


def test_names_do_not_depend_on_how_the_root_is_written(shard, monkeypatch):
    monkeypatch.chdir(shard.parent)
    for root in ("x.tar", "./x.tar", str(shard)):
        assert [file.name for file in files_of(root).files] == ["0.mp4", "1.mp4", "2.mp4"]
    assert [file.name for file in files_of(".").files] == [f"x.tar/{n}.mp4" for n in range(3)]


def test_a_damaged_header_is_an_error_and_drops_no_member_silently(shard):
    content = bytearray(shard.read_bytes())
    content[1536 + 10] ^= 0xFF  # in the header of the second member
    shard.write_bytes(content)
    with pytest.raises(MidwayError, match="damaged header at byte 1536"):
        files_of(str(shard))
