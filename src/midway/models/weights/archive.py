"""Checks of a checkpoint's archive and pickle, before torch reads them.

torch compares no checksum, so a file with flipped bits would load; and a pickle of a few kilobytes
can crash the interpreter by tuples inside of tuples.
"""

import mmap
import pickletools
import struct
import warnings
import zipfile
import zlib
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from midway.models.weights.check import printable

MAX_DEPTH = 100
"""Largest depth of nested tuples; hashing one recurses in C."""
_CHUNK = 1 << 24
_NO_CHECKPOINT = "not a checkpoint of torch"
_ZIP_START = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LEGACY_PICKLES = 5
"""Pickles at the beginning of a file of torch before 1.6: magic number, protocol, system, contents,
keys of the storages."""

_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_NESTING = (
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "DUP"),
    *("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BINPERSID"),
)


def archive_fault(path: Path) -> str:
    """Return the fault of a checkpoint's archive or pickle; empty if it is sound.

    The entries of a zip file must be stored, lie within the file, and have the checksums that the
    file states. This reads the file once, at about 1 GB/s from memory.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Python warns of escapes in the text of damaged pickles.
            warnings.simplefilter("ignore", DeprecationWarning)
            # torch takes any other beginning for a pickle.
            is_zip = file.read(4) == _ZIP_START
            file.seek(0)
            return _zip_fault(file) if is_zip else _legacy_fault(file)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError) as error:
        return f"its archive is damaged ({printable(' '.join(str(error).split()))})"


def _zip_fault(file: IO[bytes]) -> str:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = file.seek(0, 2)
        names = {entry.filename for entry in entries}
        if len(names) < len(entries):
            return "two of its entries have one name"
        if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
            return "its entries are compressed, which torch never does"
        if sum(entry.file_size for entry in entries) > size:
            return "its entries are larger than the file"
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
            if damaged := [e.filename for e in entries if not _is_intact(content, e)]:
                return (
                    f"its entry {printable(damaged[0])} is damaged; take an earlier or fresh copy"
                )
        last = {name.rpartition("/")[2] for name in names}
        if "constants.pkl" in last:
            return "is a TorchScript archive; save the state dict of its module by torch.save"
        if "data.pkl" not in last:
            return f"{_NO_CHECKPOINT}; give a .pth, .ckpt or .safetensors file"
        for name in names:
            if name.endswith("/data.pkl"):
                with archive.open(name) as opened:
                    if fault := _pickle_fault(opened):
                        return fault
    return ""


def _is_intact(content: mmap.mmap, entry: zipfile.ZipInfo) -> bool:
    header = content[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    mark, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    end = start + entry.file_size
    if mark != _ZIP_START or end > len(content) or entry.compress_size != entry.file_size:
        return False
    checksum = 0
    for first in range(start, end, _CHUNK):
        checksum = zlib.crc32(content[first : min(first + _CHUNK, end)], checksum)
    return checksum == entry.CRC


def _legacy_fault(file: IO[bytes]) -> str:
    faults = (_pickle_fault(file) for _ in range(_LEGACY_PICKLES))
    return next((fault for fault in faults if fault), "")


def _pickle_fault(file: IO[bytes]) -> str:
    """Follow the depth of nested tuples through the next pickle, without building any object."""
    stack, marks, memo = list[int](), list[int](), dict[Any, int]()
    try:
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "MARK":
                marks.append(len(stack))
            elif operation.name in _PUTS:
                memo[len(memo) if argument is None else argument] = stack[-1] if stack else 0
            elif operation.name in _GETS:
                stack.append(memo.get(argument, 0))
            else:
                _apply(operation, stack, marks)
            if stack and stack[-1] > MAX_DEPTH:
                return "its tuples are nested too deeply"
    except (ValueError, struct.error, OverflowError):
        return f"{_NO_CHECKPOINT}; give a .pth, .ckpt or .safetensors file"
    return ""


def _apply(operation: pickletools.OpcodeInfo, stack: list[int], marks: list[int]) -> None:
    """Replace the operands of an operation by the depths of its results."""
    before = operation.stack_before
    if pickletools.markobject in before:
        start = (marks.pop() if marks else 0) - before.index(pickletools.markobject)
    else:
        start = len(stack) - len(before)
    operands = stack[max(0, start) :]
    del stack[max(0, start) :]
    result = 0
    if operation.name in _FILLING:
        # Lists, dicts and built objects are not hashed by their contents.
        result = operands[0] if operands else 0
    elif operation.name in _NESTING:
        result = 1 + max(operands, default=0)
    stack.extend([result] * len(operation.stack_after))
