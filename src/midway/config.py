"""Configurations: frozen dataclasses, to JSON and back, with overrides by dotted name.

An unknown or ill-typed key is an error that names the nearest field.
"""

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from midway.errors import MidwayError

C = TypeVar("C")


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
        MidwayError: An unknown or ill-typed key, or a value the dataclass refuses.

    """
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
    return kind(**given)


def override(config: C, assignments: Sequence[tuple[str, str]]) -> C:
    """Copy of `config` with fields set by dotted name, from text: ``("optim.lr", "1e-4")``.

    A tuple is written as JSON, ``[0.5, 1.0]``, or with commas, ``0.5,1.0``.

    Raises:
        MidwayError: An unknown name (the nearest is named), or text that is no such value.

    """
    for dotted, text in assignments:
        config = _set(config, dotted.replace("-", "_").split("."), text, dotted)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """JSON object of a file.

    Raises:
        MidwayError: The file is missing or holds no JSON object.

    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MidwayError(f"{path}: cannot be read as JSON ({error}); is the path right?") from None
    if not isinstance(values, dict):
        raise MidwayError(f"{path}: holds no JSON object; is the path right?")
    return values


def field_names(config: object, prefix: str = "") -> list[str]:
    """All dotted names that `override` takes."""
    names: list[str] = []
    for field in dataclasses.fields(cast("Any", config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            names += field_names(value, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def _set(config: C, path: list[str], text: str, dotted: str) -> C:
    fields = _field_types(type(config))
    name, *rest = path
    if name not in fields:
        known = field_names(config)
        ending = [full for full in known if full.split(".")[-1] == path[-1]]
        hint = f"; did you mean '{ending[0]}'?" if rest == [] and ending else ""
        raise MidwayError(f"--{dotted}: {hint[2:] or _no_such_field(name, fields)}")
    value = getattr(config, name)
    if dataclasses.is_dataclass(value) != bool(rest):
        inside = f"{dotted}.{field_names(value)[0]}" if not rest else ".".join([*path[:1]])
        raise MidwayError(f"--{dotted}: no single value; did you mean --{inside}?")
    new = _set(value, rest, text, dotted) if rest else _parsed(fields[name], text, dotted)
    return dataclasses.replace(cast("Any", config), **{name: new})


def _parsed(kind: Any, text: str, dotted: str) -> Any:
    value: Any = text
    if getattr(kind, "__origin__", None) is tuple:
        try:
            value = json.loads(text if text.strip().startswith("[") else f"[{text}]")
        except ValueError:
            raise MidwayError(f"--{dotted}: {text!r} is no list such as 0.5,1.0") from None
    return _validated(kind, value, dotted, "command line")


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
        return TypeAdapter(kind, config=ConfigDict(extra="forbid"))
    except PydanticUserError:  # a dataclass brings its own configuration
        return TypeAdapter(kind)


def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", kind))}


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
