"""Short help for commands with many options: the common ones, one line each."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

WIDTH, FLAG_WIDTH = 100, 38
MAX_SHOWN = 30
"""Largest number of options of which all are shown."""
FIRST = ("data", "run", "optim")
"""Sections shown first."""
COMMON = {
    "data": (
        *("root", "dataset", "classes", "fps", "gap_seconds", "starts", "draws_per_clip"),
        *("batch_size", "crop", "scale", "num_workers"),
    ),
    "run": (
        *("folder", "epochs", "steps", "seed", "precision", "accelerator", "devices", "compile"),
        *("accumulate", "checkpoint_every"),
    ),
    "optim": ("lr", "warmup_epochs", "weight_decay", "clip_norm"),
    "labels": ("dataset", "root"),
}
"""Fields shown of these sections in a long configuration."""
SHOWN_OF_OTHERS = 3
"""Number of fields shown of other sections."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A field of a configuration, or an argument of a function."""

    section: str
    """Name of the outermost enclosing field; empty at the top level."""
    name: str
    """Name without those of the enclosing fields."""
    flag: str
    kind: Any
    default: Any
    """Default value; `MISSING` if the option is required."""
    text: str
    depth: int
    """Number of enclosing fields."""


def short_help(
    kind: type | Callable[..., Any], *, prog: str, about: str, default: Any = MISSING
) -> str:
    """Return usage, description and the common options of a command.

    Args:
        kind: Dataclass of the options, or a function that takes them as arguments.
        prog: Name of the command.
        about: Description, shown above the options.
        default: Instance of the dataclass, for the defaults.

    """
    options = [*(_fields(kind, default) if is_dataclass(kind) else _arguments(kind))]
    sections = sorted(
        dict.fromkeys(option.section for option in options),
        key=lambda name: (not name, FIRST.index(name) if name in FIRST else len(FIRST)),
    )
    lines = [f"usage: {prog} [--field value ...] [--json]", "", *about.strip().splitlines(), ""]
    shown = [(name, [*_common(options, name)]) for name in sections]
    if len(options) <= MAX_SHOWN:
        shown = [(name, [o for o in options if o.section == name]) for name in sections]
    for name, members in shown:
        lines += [f"{name or 'other'}:", *map(_line, members)]
    lines += ["", f"{prog} --help-all shows all options."]
    return "\n".join(lines)


def _common(options: list[Option], section: str) -> Iterator[Option]:
    members = [option for option in options if option.section == section]
    if section in COMMON:
        yield from (each for each in members if each.depth == 1 and each.name in COMMON[section])
    else:
        yield from sorted(members, key=lambda each: each.depth)[:SHOWN_OF_OTHERS]


def _line(option: Option) -> str:
    start = f"  {f'{option.flag} {_shown(option.default)}':<{FLAG_WIDTH}} "
    text = option.text
    if get_origin(option.kind) is Literal:
        text = "; ".join(filter(None, (" | ".join(map(str, get_args(option.kind))), text)))
    room = max(20, WIDTH - len(start))
    if len(text) > room:
        text = text.split("; ")[0]
    return (start + textwrap.shorten(text, room, placeholder=" ...")).rstrip()


def _shown(value: object) -> str:
    if value is MISSING:
        return "(required)"
    if isinstance(value, tuple):
        text = " ".join(map(str, value))
    else:
        text = "none" if value is None else str(value)
    return textwrap.shorten(text or "none", 20, placeholder="...") if " " in text else text


def _fields(
    kind: Any, value: Any, path: tuple[str, ...] = (), prefix: str = ""
) -> Iterator[Option]:
    """Yield the options of a dataclass; `value` is an instance with the defaults, or `MISSING`."""
    texts, hints = _attribute_texts(kind), get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = getattr(value, field.name, MISSING) if value is not MISSING else field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        text = texts.get(field.name, "")
        yield from _options(field.name, hints[field.name], default, text, path, prefix)


def _arguments(function: Callable[..., Any]) -> Iterator[Option]:
    """Yield the options of a function, with texts from its docstring."""
    texts, hints = _argument_texts(function), get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        default = MISSING if parameter.default is parameter.empty else parameter.default
        yield from _options(name, hints[name], default, texts.get(name, ""), (), "")


def _options(
    name: str, hint: Any, default: Any, text: str, path: tuple[str, ...], prefix: str
) -> Iterator[Option]:
    extras = get_args(hint)[1:] if hasattr(hint, "__metadata__") else ()
    kind = get_args(hint)[0] if extras else hint
    if is_dataclass(default):
        kind = type(default)  # a protocol's default may be of a subclass
    if get_origin(kind) is Literal and len(get_args(kind)) == 1:
        return  # there is only one value
    if isinstance(default, tuple) and any(map(is_dataclass, default)):
        return  # one option per field of each member: left to --help-all
    if is_dataclass(kind):
        inner = "" if tyro.conf.OmitArgPrefixes in extras else f"{prefix}{name}."
        yield from _fields(kind, default, (*path, name), inner)
        return
    if any(getattr(extra, "prefix_name", None) is False for extra in extras):
        prefix = ""  # tyro.conf.arg(prefix_name=False)
    negated = "[no-]" if kind is bool else ""
    yield Option(
        section=path[0] if path else "",
        name=name,
        flag=f"--{prefix}{negated}{name}".replace("_", "-"),
        kind=kind,
        default=default,
        text=text,
        depth=len(path),
    )


@cache
def _attribute_texts(kind: type) -> dict[str, str]:
    """Return the first sentence of the docstring below each field, inherited ones included."""
    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        if not is_dataclass(each):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, below in pairwise(statements):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                name = ast.unparse(field.target)
                texts[name] = _sentence(str(ast.literal_eval(below.value)))
    return texts


def _argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    _, _, arguments = (inspect.getdoc(function) or "").partition("Args:\n")
    for line in arguments.splitlines():
        if not line.strip():
            break
        name, colon, text = line.strip().partition(": ")
        if colon and line.startswith("    ") and line[4:5].strip():
            texts[name] = text
        elif texts:
            last = next(reversed(texts))
            texts[last] = f"{texts[last]} {line.strip()}"
    return {name: _sentence(text) for name, text in texts.items()}


def _sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].rstrip(".")
