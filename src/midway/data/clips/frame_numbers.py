"""Frame numbers in the names of image files: which of the numbers in a name counts the frames."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePosixPath

Number = int | Fraction
"""Frame number, or seconds as a fraction."""

_DIGITS = re.compile(r"(\d+)")
_NAMES_A_PART = 10
"""A number of one or two digits with fewer values may name a camera."""
_MORE_FRAMES = 3
"""Factor by which another number must have more values, to count the frames instead."""


def number_frames(names: Sequence[str]) -> list[tuple[str, Number | None]]:
    """Return for each image the name of its sequence and its frame number.

    Names that differ only in numbers are compared. The last number that varies counts the frames,
    except if it has one or two digits and few values, as that of a camera. A decimal number counts
    seconds. The name of the sequence has ``*`` in place of the number.

    Args:
        names: Paths relative to a root.

    Returns:
        Pairs in the order of `names`; for a name without digits, the folder and None.
    """
    alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    parts: list[list[str]] = []
    for place, name in enumerate(names):
        path = PurePosixPath(name)
        pieces = _DIGITS.split(path.stem)  # text and digits in turn
        parts.append(pieces)
        alike[(path.parent.as_posix(), path.suffix, *pieces[::2])].append(place)
    found: list[tuple[str, Number | None]] = [("", None)] * len(names)
    for (folder, suffix, *_), places in alike.items():
        some = [parts[place] for place in places]
        for place, (stem, number) in zip(places, _numbered(some), strict=True):
            # Images without numbers are one sequence for each folder.
            pattern = "" if number is None else f"{stem}{suffix}"
            found[place] = ((PurePosixPath(folder) / pattern).as_posix(), number)
    return found


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key that puts ``frame9`` before ``frame10``."""
    return tuple(
        int(part) if place % 2 else part.lower() for place, part in enumerate(_DIGITS.split(name))
    )


def _numbered(some: list[list[str]]) -> Iterator[tuple[str, Number | None]]:
    """Yield pattern and number of names with the same text around their numbers."""
    if len(some[0]) == 1:
        yield from ((pieces[0], None) for pieces in some)
        return
    counting = _counting(some)
    fraction = _fraction(some, counting)
    if fraction is not None:
        for pieces in some:
            seconds = Fraction(f"{pieces[fraction - 2]}.{pieces[fraction]}")
            yield "".join([*pieces[: fraction - 2], "*", *pieces[fraction + 1 :]]), seconds
        return
    for pieces in some:
        pattern = "".join([*pieces[:counting], "*", *pieces[counting + 1 :]])
        yield pattern, int(pieces[counting])


def _counting(some: list[list[str]]) -> int:
    """Return the place of the number that counts the frames."""
    values = {place: {pieces[place] for pieces in some} for place in range(1, len(some[0]), 2)}
    varying = [place for place, found in values.items() if len(found) > 1]
    if not varying:
        return len(some[0]) - 2
    *earlier, last = varying
    is_short = max(map(len, values[last])) <= 2 and len(values[last]) < _NAMES_A_PART
    fuller = [place for place in earlier if len(values[place]) >= _MORE_FRAMES * len(values[last])]
    return fuller[-1] if is_short and fuller else last


def _fraction(some: list[list[str]], counting: int) -> int | None:
    """Return the place of the fraction if the counting number belongs to a decimal one, else None.

    Frames of numbered scenes (``scene.2.0013.png``) look like decimal numbers, but start again with
    each scene, so that their fractions stay small.
    """
    first = some[0]
    if counting + 2 < len(first) and first[counting + 1] == ".":
        # Whole seconds with a fraction of zeros.
        return counting + 2 if not any(int(pieces[counting + 2]) for pieces in some) else None
    if counting < 3 or first[counting - 1] != "." or first[counting - 3][-1:].isalpha():
        return None
    numbers = sorted({int(pieces[counting]) for pieces in some})
    is_small = max(Fraction(f"0.{pieces[counting]}") for pieces in some) < Fraction(1, 2)
    is_one_scene = len({pieces[counting - 2] for pieces in some}) == 1
    is_counter = all(after - number == 1 for number, after in pairwise(numbers))
    return None if is_small or (is_one_scene and is_counter) else counting
