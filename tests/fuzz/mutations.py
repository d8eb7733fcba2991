"""Mutations of files: of bytes, of entries of zip archives, of values of JSON."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
VALUES = [
    *(None, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**63, 1e-320),
    *("", "x", "../../../etc/passwd", "hub/name", "\0", "\x1b[31m", "\ud800"),
    *([], {}, [[]], [1, 2, 3], ["a"], {"a": 1}),
]
"""Values of other types, sizes and signs than a field expects."""
HEAD = 2000
"""Bytes at both ends that are hit more often, as headers and tables lie there."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a file in one to three places."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if changed:
            rng.choice(_BYTES)(changed, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random, reach: int = 0) -> int:
    near = min(HEAD, len(data))
    low, high = rng.choice(
        [(0, len(data)), (0, len(data)), (0, near), (len(data) - near, len(data))]
    )
    return max(0, min(rng.randrange(low, max(high, low + 1)), len(data) - 1 - reach))


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 40)):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _cut_out(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.randrange(1, max(2, min(5000, len(data) // 3)))]


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _swap(data: bytearray, rng: random.Random) -> None:
    size = rng.randrange(1, max(2, min(4000, len(data) // 4)))
    one, other = _place(data, rng, size), _place(data, rng, size)
    block = data[one : one + size]
    data[one : one + size] = data[other : other + size]
    data[other : other + size] = block


def _insert(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng)
    data[start:start] = rng.randbytes(rng.randrange(1, 200))


def _number(data: bytearray, rng: random.Random) -> None:
    width = rng.choice([1, 2, 4, 8])
    start = _place(data, rng, width)
    value = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
    data[start : start + width] = value.to_bytes(width, rng.choice(["big", "little"]))


def _fill(data: bytearray, rng: random.Random) -> None:
    start, size = _place(data, rng), rng.randrange(1, 300)
    data[start : start + size] = bytes([rng.choice([0, 255, 65])]) * size


def _repeat(data: bytearray, rng: random.Random) -> None:
    start, size = _place(data, rng), rng.randrange(1, 300)
    data[start:start] = data[start : start + size]


_BYTES = (_flip, _cut_out, _cut_off, _swap, _insert, _number, _fill, _repeat)


def with_checksums(png: bytes) -> bytes:
    """Return a PNG with the right checksum in each chunk, so that its decoder reads on."""
    fixed, place = bytearray(png[:8]), 8
    while place + 12 <= len(png):
        size = int.from_bytes(png[place : place + 4], "big")
        if size > len(png) - place - 12:
            break
        body = png[place + 4 : place + 8 + size]
        fixed += png[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + size
    return bytes(fixed + png[place:])


def mutate_entry(archive: bytes, rng: random.Random, compression: int) -> bytes:
    """Change one entry of a zip, and write an archive with right checksums."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    # The entries that are parsed matter more than the raw numbers.
    parsed = [name for name in contents if name.endswith((".pkl", ".npy"))]
    victim = rng.choice([*parsed * 3, *contents])
    contents[victim] = mutate(contents[victim], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as new:
        for name, content in contents.items():
            new.writestr(name, content)
    return made.getvalue()


def mutate_json(value: Any, rng: random.Random) -> str:
    """Change one to three values of JSON: their type, sign or size; or drop or add one."""
    value = json.loads(json.dumps(value))
    paths = list(_paths(value))
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(paths)
        try:
            parent = value
            for key in path[:-1]:
                parent = parent[key]
            _change(parent, path[-1], rng)
        except (KeyError, TypeError, IndexError):  # an earlier change removed it
            continue
    return json.dumps(value)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in items:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from _paths(each, (*path, key))


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            parent[key] = rng.choice(VALUES)
        case 1:
            del parent[key]
        case 2 if isinstance(parent, dict):
            parent["extra"] = rng.choice(VALUES)
        case _:
            old = parent[key]
            if isinstance(old, bool):
                parent[key] = not old
            elif isinstance(old, int):
                parent[key] = old * rng.choice([-1, 2, 10**6, 0])
            elif isinstance(old, float):
                parent[key] = old * rng.choice([-1, 1e9, 0, float("nan")])
            elif isinstance(old, str):
                parent[key] = old + rng.choice(["x", "\n", "/..", ""])
            else:
                parent[key] = rng.choice(VALUES)


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """Change JSON values in one to three lines, and perhaps the end of the file."""
    lines = data.decode().splitlines()
    for _ in range(rng.choice([1, 2, 3])):
        number = rng.randrange(len(lines))
        lines[number] = mutate_json(json.loads(lines[number]), rng)
    return ("\n".join(lines) + rng.choice(["\n", "", "\n\n", "\n{"])).encode()


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON header of a `.safetensors` file, or the JSON within its metadata."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    nested = [key for key, text in metadata.items() if text.startswith("{")]
    if nested and rng.random() < 0.6:
        key = rng.choice(nested)
        metadata[key] = mutate_json(json.loads(metadata[key]), rng)
        text = json.dumps(header).encode()
    else:
        text = mutate_json(header, rng).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
