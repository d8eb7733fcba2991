"""Class lists: names, label values and colours of the classes of a dataset."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.data.segmentation.classes import IGNORE, class_colours
from midway.errors import MidwayError

Colour = tuple[int, int, int]
CHANNELS = (1 << 16, 1 << 8, 1)
"""Factors of red, green and blue in the number of a colour, 0xRRGGBB."""
NAMED_IN_ERRORS = 3
"""Maximum label values named in an error."""


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Classes of a dataset and the label values that stand for them."""

    names: tuple[str, ...]
    values: tuple[tuple[int, int], ...]
    """Pairs of a label value and its class or `IGNORE`, sorted by value."""
    by_colour: bool = False
    """If True, masks contain colours, and label values are numbers 0xRRGGBB; else ids."""
    palette: bool = False
    """If True, ids may also be the indices of a palette, bits, or three equal channels."""
    colours: tuple[Colour, ...] = ()
    """RGB of each class in pictures; empty for those of `class_colours`."""
    source: str = ""
    """File of the list, for errors; empty for a list of this package."""

    def painted(self) -> list[Colour]:
        """Return one RGB colour of 0 to 255 for each class, for pictures."""
        return [*self.colours] or class_colours(self.names)

    def gives_same(self, other: "ClassList") -> bool:
        """Return whether both lists give all masks the same classes."""
        return self.names == other.names and self.values == other.values

    def classes_of(self, labels: NDArray[np.uint8], location: str) -> NDArray[np.uint8]:
        """Convert the contents of a mask to classes.

        Args:
            labels: Ids (height, width); colours (height, width, 3) if `by_colour`.
            location: Path or URL of the mask, for errors.

        Returns:
            Class ids or `IGNORE`, shape (height, width).

        Raises:
            MidwayError: A label value is not in the list.

        """
        values, classes = np.array(self.values, np.int64).T
        numbers: NDArray[np.integer] = labels
        if self.by_colour:
            numbers = numbers.astype(np.int64) @ CHANNELS
            places = np.searchsorted(values, numbers).clip(max=len(values) - 1)
            found = np.where(values[places] == numbers, classes[places], -1)
        else:
            table = np.full(256, -1, np.int16)
            table[values] = classes
            found = table[numbers]
        if found.min() < 0:
            raise MidwayError(self._mismatch(numbers[found < 0], found.size, location))
        return found.astype(np.uint8)

    def stored(self) -> NDArray[np.uint8]:
        """Return the id that stands for each class in written masks, shape (classes,).

        The first id of the class; its number if masks contain colours.
        """
        if self.by_colour:
            return np.arange(len(self.names), dtype=np.uint8)
        first = {number: value for value, number in reversed(self.values)}
        return np.array([first[number] for number in range(len(self.names))], np.uint8)

    def _mismatch(self, unknown: NDArray[np.integer], size: int, location: str) -> str:
        found = [int(value) for value in np.unique(unknown)]
        shown = ", ".join(map(self._shown, found[:NAMED_IN_ERRORS]))
        shown += ", ..." if len(found) > NAMED_IN_ERRORS else ""
        several = len(found) > 1
        what = f"{'colour' if self.by_colour else 'label value'}{'s' * several} {shown}"
        verb = "are" if several else "is"
        if not self.source:
            return (
                f"{location}: {what} {verb} not in {self._allowed()}; check that this is the "
                "right type of label file"
            )
        return (
            f"{location}: {what}, {100 * len(unknown) / size:.3g} % of its pixels, {verb} not in "
            f"{self.source} ({self._allowed()}); add {'them' if several else 'it'} there, as a "
            "class, or as ignored: ignored,VALUE in a list, ignored = [VALUE] in TOML"
        )

    def _allowed(self) -> str:
        if self.by_colour:
            return f"{len(self.values)} colours"
        return ranges([value for value, _ in self.values])

    def _shown(self, value: int) -> str:
        if not self.by_colour:
            return str(value)
        return f"({value >> 16}, {value >> 8 & 255}, {value & 255})"


def class_list(
    names: Sequence[str],
    values: Mapping[int, int] | int = 0,
    ignored: Iterable[int] = (),
    *,
    palette: bool = False,
) -> ClassList:
    """Return a list of ids.

    Args:
        names: Names of the classes.
        values: Class of each id; or the id of the first class, if they are consecutive.
        ignored: Ids that are no class.
        palette: If True, ids may also be the indices of a palette.

    """
    if isinstance(values, int):
        values = {values + number: number for number in range(len(names))}
    both = dict.fromkeys(ignored, IGNORE) | dict(values)
    return ClassList(names=tuple(names), values=tuple(sorted(both.items())), palette=palette)


def ranges(values: Sequence[int]) -> str:
    """Format numbers as ranges.

    Examples:
        >>> ranges([0, 1, 2, 255])
        '0 to 2, 255'

    """
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{low} to {high}" if low < high else str(low) for low, high in runs)
