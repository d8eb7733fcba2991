"""Validation of configuration dataclasses, and their conversion to and from JSON.

An unknown key raises an error that names the nearest field.
"""

import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from midway.errors import MidwayError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

C = TypeVar("C")
MAX_WORKERS, MAX_BATCH = 1024, 2**20
"""Bounds of settings that a configuration from elsewhere could raise without end."""
LONGEST = 200
"""Largest number of characters of a value in an error message."""


def require(part: str, rules: Mapping[str, bool]) -> None:
    """Raise an error if a configuration violates a rule.

    Args:
        part: Name of the configuration, such as ``data`` or ``optim``. It is prefixed to the field
            in the message, unless it is empty.
        rules: Error messages, such as ``f"lr = {lr}; give a rate above 0"``, and the condition
            that must be true for each.

    Raises:
        MidwayError: A condition is false; the message is that of the first.

    Examples:
        >>> require("optim", {"lr = -1.0; give a rate above 0": False})
        Traceback (most recent call last):
        midway.errors.MidwayError: optim.lr = -1.0; give a rate above 0

    """
    for rule, holds in rules.items():
        if not holds:
            raise MidwayError(f"{part}.{rule}" if part else rule)


def check_at_least(part: str, config: object, **least: float) -> None:
    """Raise an error if a field of `config` is below its lower bound.

    Args:
        part: Name of the configuration, for the error message.
        config: Object with a numeric attribute for each name in `least`.
        least: Lower bound (inclusive) of each field.

    Raises:
        MidwayError: A field is too small; the message names it and its bound.

    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise MidwayError(f"{part}: {name} {value} is too small; give {bound} or more")


def check_at_most(part: str, config: object, **most: float) -> None:
    """Refuse a field of `config` above its bound, so that no file can demand unlimited memory.

    Args:
        part: Name of the configuration, for the message.
        config: Has a number under each name.
        most: Largest value allowed, by field.

    Raises:
        MidwayError: Names the field and its bound.

    """
    for name, bound in most.items():
        value = getattr(config, name)
        if value > bound:
            raise MidwayError(f"{part}: {name} {value} is too large; give {bound} or less")


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, also in mappings, lists and tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def json_text(value: object, *, indent: int | None = None) -> str:
    """Convert plain values to JSON, with null for numbers that are not finite.

    Examples:
        >>> json_text({"loss": float("nan")})
        '{"loss": null}'

    """
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def to_json(config: object) -> dict[str, Any]:
    """Convert a configuration dataclass to JSON values; paths become strings, tuples lists."""
    return cast("dict[str, Any]", _to_plain(config))


def from_json(kind: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build a configuration of type `kind` from the values that `to_json` returns.

    Args:
        kind: A frozen dataclass; its fields may be dataclasses.
        values: Values by field name; missing fields take their defaults.
        where: Origin of the values, for the error message.

    Raises:
        MidwayError: A key is unknown, ill-typed or missing, or the dataclass rejects a value.

    """
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where}: {values!r} is not a JSON object; correct it")
    fields = _field_types(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise MidwayError(f"{where}: {_no_such_field(name, fields)}")
        inner = f"{where}: {name}" if isinstance(value, Mapping) else where
        if dataclasses.is_dataclass(fields[name]) and isinstance(value, Mapping):
            given[name] = from_json(cast("type", fields[name]), value, where=inner)
        else:
            given[name] = _validated(fields[name], value, name, where)
    for field in dataclasses.fields(cast("Any", kind)):
        if field.name not in given and _is_required(field):
            raise MidwayError(f"{where}: '{field.name}' is missing; add it")
    return kind(**given)


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        MidwayError: The file is missing or does not contain a JSON object.

    """
    try:
        # A device would be read without end.
        if path.exists() and not path.is_file():
            raise MidwayError(f"{path}: is not a regular file; is the path right?")
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise MidwayError(f"{path}: cannot be read as JSON ({error}); is the path right?") from None
    if not isinstance(values, dict):
        raise MidwayError(f"{path}: does not contain a JSON object; is the path right?")
    return values


RENAMED = {
    "encoder.run": "encoder.network",
    "encoder.told": "encoder.release",
    "start.told": "start.release",
}
"""Renamed fields of a run's ``config.json``: name in version 0.1, and name today."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's ``config.json``; fields that version 0.1 named otherwise get today's names.

    Raises:
        MidwayError: The file is missing or does not contain a JSON object.

    """
    values = read_json(path)
    for old, new in RENAMED.items():
        (part, name), renamed = old.split("."), new.split(".")[1]
        fields = values.get(part)
        if isinstance(fields, dict) and name in fields:
            fields[renamed] = fields.pop(name)
    return values


def _validated(kind: Any, value: Any, name: str, where: str) -> Any:
    from pydantic import ValidationError  # a tenth of a second, for commands that read no JSON

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise MidwayError(
            f"{where}: {name} = {repr(value)[:LONGEST]}: {message[0].lower()}{message[1:]}"
        ) from None


@functools.cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(kind, config=ConfigDict(strict=False, extra="forbid"))
    except PydanticUserError:  # pydantic allows no `config` for a dataclass
        return TypeAdapter(kind)


def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", kind))}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _no_such_field(name: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.7)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(fields)}"
    return f"no field '{name}'; {hint}"


def _to_plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
