"""Checkpoints that are damaged, hostile or something else: one line each, in little memory."""

import argparse
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.weights.safe_pickle import read_checkpoint

HEAD, END = b"\x80\x02", b"."


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def from_pickle(path: Path, body: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint with a pickle of opcodes, as torch lays it out."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", HEAD + body + END)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


def refused(path: Path) -> str:
    with pytest.raises(MidwayError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
    return message


def test_a_sound_file_of_either_format_is_read(tmp_path: Path) -> None:
    content = {"model": {"a": torch.arange(6.0).view(2, 3).T}, "args": argparse.Namespace(lr=1)}
    for name, is_zip in (("new.pth", True), ("old.pth", False)):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
        found = read_checkpoint(tmp_path / name)
        assert torch.equal(found["model"]["a"], content["model"]["a"])
        assert found["args"] == {"lr": 1}


def test_one_flipped_bit_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {"a": torch.zeros(4000)})
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    path.write_bytes(damaged)
    assert "its entry net/data/0 is damaged" in refused(path)


def test_an_archive_that_swells_is_refused(tmp_path: Path) -> None:
    path = from_pickle(tmp_path / "net.pth", b"}", zipfile.ZIP_DEFLATED)
    assert "its entries are compressed" in refused(path)
    path = saved(tmp_path / "twice.pth", {"a": torch.zeros(3)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("twice/data/0", bytes(12))
    assert "two of its entries have one name" in refused(path)


def test_a_tensor_larger_than_its_bytes_in_the_file_is_refused(tmp_path: Path) -> None:
    stretched = saved(tmp_path / "one.pth", {"a": torch.zeros(1).expand(10**6, 10**6)})
    assert "unfold to far more than the size of the file" in refused(stretched)
    whole = torch.zeros(10**5)
    shared = saved(tmp_path / "many.pth", {str(number): whole for number in range(100)})
    assert "unfold to far more" in refused(shared)
    # Tied weights are common.
    tied = saved(tmp_path / "tied.pth", {str(number): whole for number in range(4)})
    assert len(read_checkpoint(tied)) == 4


def test_lists_that_share_parts_do_not_unfold_without_end(tmp_path: Path) -> None:
    shared: list = []
    for _ in range(60):
        shared = [shared, shared]
    assert "unfold to far more" in refused(saved(tmp_path / "net.pth", {"args": shared}))


def test_nested_tuples_are_refused_before_they_are_hashed(tmp_path: Path) -> None:
    deep = b"}N" + b"\x85" * 10**6 + b"Ns"
    assert "nested too deeply" in refused(from_pickle(tmp_path / "net.pth", deep))
    # By way of the memo, and of a mark.
    steps = b"".join(b"(h" + bytes([n]) + b"tq" + bytes([n + 1]) for n in range(200))
    assert "nested too deeply" in refused(
        from_pickle(tmp_path / "m.pth", b"}Nq\x00" + steps + b"Ns")
    )
    # A dict that is filled in many portions is not deep.
    flat = {str(number): (number, (1, 2)) for number in range(50_000)}
    assert len(read_checkpoint(saved(tmp_path / "flat.pth", flat))) == len(flat)


@pytest.mark.parametrize("name", ["str", "int", "list", "dict"])
def test_a_type_that_arguments_mention_is_never_called(tmp_path: Path, name: str) -> None:
    called = b"}X\x01\x00\x00\x00xcbuiltins\n" + name.encode() + b"\n)Rs"
    assert "a type is called" in refused(from_pickle(tmp_path / "net.pth", called))


def test_names_in_a_message_have_no_control_characters(tmp_path: Path) -> None:
    body = b"c\x1b]0;owned\x07\x1b[31mos\nsystem\n)R"
    assert "its pickle asks for ?]0;owned??[31mos.system" in refused(
        from_pickle(tmp_path / "net.pth", body)
    )


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "run git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"\xef\xbb\xbf<HTML>", "is a web page"),
        (_tar(), "is a tar archive; unpack it"),
        (b"\x1f\x8b\x08\x00", "compressed by gzip"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (pickle.dumps({"a": 1}, 2), "not a checkpoint of torch"),
        (b"hello\n", "not a checkpoint of torch"),
        (b"PK\x03\x04 cut", "its archive is damaged"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.pth.tar"
    path.write_bytes(content)
    assert message in refused(path)


def test_a_script_of_torch_and_a_device_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("archive/constants.pkl", HEAD + b")" + END)
        archive.writestr("archive/data.pkl", HEAD + b"}" + END)
    assert "is a TorchScript archive" in refused(tmp_path / "net.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    assert "not a regular file" in refused(tmp_path / "zero.pth")


def test_an_old_file_that_lies_of_its_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    # The number of elements stands before them, at the end of the file.
    path.write_bytes(path.read_bytes()[: -8 - 16] + struct.pack("<q", 1 << 40) + bytes(16))
    assert "not a torch checkpoint" in refused(path)
