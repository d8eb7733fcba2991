"""Files of class lists, with or without the folders of a dataset.

A text file has one class a line: `car`, `car,26`, `car,0,0,142`, or CVAT's `car:0,0,142::`; lines
such as `ignored,11` name label values that are no class. A TOML file has the fields of `ClassFile`.
JSON is the configuration of Mapillary Vistas.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from midway.config import from_json
from midway.data.files import open_binary
from midway.data.segmentation.class_list import CHANNELS, ClassList, Colour
from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.layouts import COMMON_LAYOUTS, Dataset, Layout
from midway.errors import MidwayError

IGNORED = "ignored"
"""Name of the label values that are no class."""
MAX_CLASSES = IGNORE
"""Maximum number of classes: ids have 8 bits, and `IGNORE` is one of them."""
Row = tuple[str, tuple[int, ...]]
"""Name and label value: an id, or red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class ClassFile:
    """Contents of a class list in TOML."""

    classes: tuple[str, ...] = ()
    """Names of classes with consecutive ids."""
    offset: int = 0
    """Id of the first of `classes`."""
    ids: dict[str, int | tuple[int, ...]] = field(default_factory=dict)
    """One or several ids of each class, instead of `classes`."""
    colours: dict[str, Colour | tuple[Colour, ...]] = field(default_factory=dict)
    """RGB of each class in the masks; with `classes` or `ids`, in pictures only."""
    ignored: tuple[int | Colour, ...] = ()
    """Label values that are no class. Among ids, 255 is ignored too, unless it is a class."""
    images: str = ""
    """Path of the images below the root, such as ``images/{split}/*.jpg``."""
    masks: str = ""
    """Path of the masks, such as ``masks/{split}/*.png``; ``*`` is the same as in `images`."""
    lists: str = ""
    """Text file with the names of a split, such as ``{split}.txt``."""
    splits: tuple[str, str] = ("train", "val")
    """Names of the training and the evaluation split."""
    hold_out: int = 0
    """If n > 0, every n-th image by name is evaluated on, and the others are trained on."""

    def rows(self) -> list[Row]:
        """Return name and label value of every class, and of every ignored value."""
        rows: list[Row]
        if self.classes:
            rows = [(name, (self.offset + n,)) for n, name in enumerate(self.classes)]
        elif self.ids:
            several = {n: (v,) if isinstance(v, int) else v for n, v in self.ids.items()}
            rows = [(name, (each,)) for name, ids in several.items() for each in ids]
        else:
            rows = self.colour_rows()
        ignored = ((each,) if isinstance(each, int) else each for each in self.ignored)
        return [*rows, *((IGNORED, value) for value in ignored)]

    def colour_rows(self) -> list[Row]:
        """Return name and colour of every class."""
        rows: list[Row] = []
        for name, value in self.colours.items():
            if isinstance(value[0], tuple):
                rows += [(name, tuple(colour)) for colour in value if isinstance(colour, tuple)]
            else:
                rows.append((name, tuple(each for each in value if isinstance(each, int))))
        return rows


def read_dataset(location: str) -> Dataset:
    """Read a class list as the description of a dataset.

    Args:
        location: Path or URL.

    Returns:
        Its classes and possible layouts; `COMMON_LAYOUTS` unless the file has one.

    Raises:
        MidwayError: The file cannot be read, or its entries are unknown or contradict each other.

    """
    suffix, text = PurePosixPath(location).suffix.lower(), read_text(location)
    if suffix != ".toml":
        classes = (_of_mapillary if suffix == ".json" else _of_lines)(text, location)
        return Dataset("own labels", classes, COMMON_LAYOUTS)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MidwayError(f"{location}: is not TOML ({error}); correct it") from None
    file = from_json(ClassFile, table, where=location)
    layouts = COMMON_LAYOUTS
    if file.images or file.masks:
        try:
            layouts = (Layout(file.images, file.masks, "", file.lists, file.hold_out),)
        except MidwayError as error:
            raise MidwayError(f"{location}: {error}") from None
    elif file.lists or file.hold_out:
        raise MidwayError(f"{location}: lists and hold_out need images and masks; give those too")
    return Dataset("own labels", _of_toml(file, location), layouts, splits=file.splits)


def read_text(location: str) -> str:
    """Read a text file at a path or URL.

    Raises:
        MidwayError: The file cannot be read, or is not UTF-8 text.

    """
    try:
        with open_binary(location) as file:
            return file.read().decode("utf-8-sig")
    except OSError as error:
        raise MidwayError(f"{location}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise MidwayError(f"{location}: is not UTF-8 text; give a text file") from None


def _of_toml(file: ClassFile, location: str) -> ClassList:
    if file.classes and file.ids:
        raise MidwayError(f"{location}: has both classes and ids; give one")
    if file.offset and not file.classes:
        raise MidwayError(f"{location}: offset belongs to classes; give the ids themselves")
    if len({*file.classes}) < len(file.classes):
        raise MidwayError(f"{location}: two classes have one name; rename one")
    if empty := [name for table in (file.ids, file.colours) for name in table if table[name] == ()]:
        raise MidwayError(f"{location}: class '{empty[0]}' has an empty list; give it a value")
    return _checked(
        file.rows(),
        location,
        by_colour=not file.classes and not file.ids,
        painted=file.colour_rows(),
    )


def _of_lines(text: str, location: str) -> ClassList:
    lines = [line.strip() for line in text.splitlines()]
    # The last two parts of CVAT's lines are body parts and actions.
    cells = [
        [cell.strip() for cell in re.split(r"[,:]", re.sub(r":[^:]*:[^:]*$", "", line))]
        for line in lines
        if line and not line.startswith("#")
    ]
    if cells and len(cells[0]) > 1 and not re.search(r"\d", "".join(cells[0][1:])):
        del cells[0]  # the names of the columns
    plain = [row for row in cells if row[0] != IGNORED or len(row) == 1]
    kinds = {len(row) for row in plain}
    if len(kinds) != 1 or not kinds <= {1, 2, 4}:
        odd = next((row for row in plain if len(row) != len(plain[0])), [])
        line = f"'{','.join(odd)}' is of another kind than the first line; " if odd else ""
        raise MidwayError(
            f"{location}: no list of classes; {line}give lines of one kind: NAME, NAME,ID or "
            "NAME,R,G,B, and ignored,VALUE for what is no class"
        )
    for name, *numbers in cells:
        if not all(each.isdecimal() for each in numbers):
            raise MidwayError(f"{location}: '{name}' has no whole numbers; correct the line")
    if kinds == {1} and len({name for (name,) in plain}) < len(plain):
        raise MidwayError(f"{location}: two classes have one name; rename one")
    ignored = [row for row in cells if row not in plain]
    rows = [
        (name, tuple(map(int, numbers)) or (number,))
        for number, (name, *numbers) in enumerate([*plain, *ignored])
    ]
    return _checked(rows, location, by_colour=kinds == {4})


def _of_mapillary(text: str, location: str) -> ClassList:
    """Return the classes of the configuration of Mapillary Vistas; an id is a place in it."""
    try:
        labels = json.loads(text)["labels"]
        is_unique = len({each["readable"] for each in labels}) == len(labels)
        key = "readable" if is_unique else "name"
        rows: list[Row] = [
            (each[key] if each["evaluate"] else IGNORED, (number,))
            for number, each in enumerate(labels)
        ]
        painted: list[Row] = [(each[key], tuple(each["color"])) for each in labels]
        if not all(type(part) is int for _, colour in painted for part in colour):
            raise TypeError("colours of other values than whole numbers")
        if not all(isinstance(name, str) for name, _ in rows):
            raise TypeError("names that are no text")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MidwayError(
            f"{location}: is not a configuration of Mapillary Vistas; give other classes as .toml "
            "or .txt"
        ) from None
    return _checked(rows, location, by_colour=False, painted=painted)


def _checked(
    rows: Sequence[Row], location: str, *, by_colour: bool, painted: Sequence[Row] = ()
) -> ClassList:
    """Return the class list of some rows.

    Args:
        rows: Name and label value; a name may have several, `IGNORED` is no class.
        location: File of the list.
        by_colour: If True, label values are colours.
        painted: Colours in pictures, if label values are ids.

    Raises:
        MidwayError: A value or the number of classes is out of range, a value stands for two
            classes, or a class has no colour.

    """
    names = [*dict.fromkeys(name for name, _ in rows if name != IGNORED)]
    if not 2 <= len(names) <= MAX_CLASSES or not all(names):
        raise MidwayError(f"{location}: {len(names)} named classes; give 2 to {MAX_CLASSES}")
    values: dict[int, int] = {}
    for name, value in rows:
        number = IGNORE if name == IGNORED else names.index(name)
        if values.setdefault(_packed(name, value, location, by_colour), number) != number:
            raise MidwayError(
                f"{location}: {value if by_colour else value[0]} stands for '{name}' and for "
                "another class; correct one"
            )
    if not by_colour:
        values.setdefault(IGNORE, IGNORE)
    colours: dict[str, Colour] = {}
    for name, value in rows if by_colour else painted:
        _packed(name, value, location, by_colour=True)
        red, green, blue = value
        colours.setdefault(name, (red, green, blue))
    if colours and (missing := [name for name in names if name not in colours]):
        raise MidwayError(f"{location}: class '{missing[0]}' has no colour; add it")
    return ClassList(
        names=tuple(names),
        values=tuple(sorted(values.items())),
        by_colour=by_colour,
        palette=True,
        colours=tuple(colours[name] for name in names) if colours else (),
        source=location,
    )


def _packed(name: str, value: tuple[int, ...], location: str, by_colour: bool) -> int:
    """Return the number of an id or colour."""
    count = 3 if by_colour else 1
    if len(value) != count or not all(0 <= each <= 255 for each in value):
        shown = value[0] if len(value) == 1 else value
        kind = "a colour, three numbers" if by_colour else "an id, one number"
        raise MidwayError(f"{location}: '{name}' has {shown}; give {kind} from 0 to 255")
    return sum(each * factor for each, factor in zip(value, CHANNELS[-count:], strict=True))
