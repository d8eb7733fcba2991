"""Configurations: frozen dataclasses, to JSON and back, and rules that they keep.

An unknown or ill-typed key is an error that names the nearest field.
"""

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from midway.errors import MidwayError

C = TypeVar("C")


def require(part: str, rules: Mapping[str, bool]) -> None:
    """Refuse a configuration that breaks a rule.

    Args:
        part: Name of the configuration, before the field in the message: ``data``, ``optim``; empty
            for none.
        rules: Whether each rule holds, by its message: ``f"lr = {lr}; give a rate above 0"``.

    Raises:
        MidwayError: The first rule that does not hold.

    Example:
        >>> require("optim", {"lr = -1.0; give a rate above 0": False})
        Traceback (most recent call last):
        midway.errors.MidwayError: optim.lr = -1.0; give a rate above 0

    """
    for rule, holds in rules.items():
        if not holds:
            raise MidwayError(f"{part}.{rule}" if part else rule)


def check_at_least(part: str, config: object, **least: float) -> None:
    """Refuse a field of `config` that is below its bound.

    Args:
        part: Name of the configuration, for the message.
        config: Has a number under each name.
        least: Smallest value allowed, by field.

    Raises:
        MidwayError: Names the field and its bound.

    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise MidwayError(f"{part}: {name} {value} is too small; give {bound} or more")


def to_json(config: object) -> dict[str, Any]:
    """Plain JSON values of a configuration dataclass; paths become strings, tuples lists."""
    return cast("dict[str, Any]", _to_plain(config))


def from_json(kind: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build a configuration of type `kind` from what `to_json` gave.

    Args:
        kind: A frozen dataclass; its fields may be dataclasses.
        values: Names and values; left-out fields take their defaults.
        where: What the values come from, for the error message.

    Raises:
        MidwayError: An unknown, ill-typed or missing key, or a value the dataclass refuses.

    """
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where}: {values!r} is no JSON object")
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
            raise MidwayError(f"{where}: no '{field.name}' in it; add it")
    return kind(**given)


def read_json(path: Path) -> dict[str, Any]:
    """JSON object of a file.

    Raises:
        MidwayError: The file is missing or holds no JSON object.

    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise OSError("not a regular file")
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MidwayError(f"{path}: cannot be read as JSON ({error}); is the path right?") from None
    if not isinstance(values, dict):
        raise MidwayError(f"{path}: holds no JSON object; is the path right?")
    return values


RENAMED = {
    "encoder.run": "encoder.network",
    "encoder.told": "encoder.release",
    "start.told": "start.release",
}
"""Fields of version 0.1 in a run's config.json, and their places today."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's ``config.json``; fields that have been renamed since have their new names.

    Raises:
        MidwayError: The file is missing or holds no JSON object.

    """
    values = read_json(path)
    for old, new in RENAMED.items():
        (part, name), renamed = old.split("."), new.split(".")[1]
        fields = values.get(part)
        if isinstance(fields, dict) and name in fields:
            fields[renamed] = fields.pop(name)
    return values


def _validated(kind: Any, value: Any, name: str, where: str) -> Any:
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise MidwayError(
            f"{where}: {name} = {value!r}: {message[0].lower()}{message[1:]}"
        ) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind, config=ConfigDict(strict=False, extra="forbid"))
    except PydanticUserError:  # a dataclass brings its own configuration
        return TypeAdapter(kind)


def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", kind))}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _no_such_field(name: str, fields: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
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
