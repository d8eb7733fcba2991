"""Recognition of files that are not weights, with the remedy for each kind."""

from pathlib import Path

_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; run git lfs pull"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it and give the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it and give the file inside"),
    (b"\x89HDF\r\n", "is an HDF5 file, as Keras writes; convert it to .safetensors"),
    (b"\x93NUMPY", "is a NumPy array; convert it to .safetensors"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_TAR_MARK, _TAR_OFFSET = b"ustar", 257
_INDEXES = ("*.safetensors.index.json", "*.bin.index.json", ".metadata")
"""Files beside the shards of a checkpoint: of transformers, and of torch.distributed."""


def wrong_kind(path: Path) -> str:
    """Return what a file is if it cannot be weights, and the remedy; empty if it may be."""
    if not path.is_file():
        return "is not a regular file; give a .pth, .ckpt or .safetensors file"
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty; fetch it again"
    if found := [remedy for mark, remedy in _STARTS if start.startswith(mark)]:
        return found[0]
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return "is a web page, not weights; fetch the file again"
    if start[_TAR_OFFSET:].startswith(_TAR_MARK):
        return "is a tar archive; unpack it and give the file inside"
    return ""


def is_sharded(folder: Path) -> bool:
    """Return whether a folder contains one checkpoint in several files."""
    return any(next(folder.glob(pattern), None) for pattern in _INDEXES)
