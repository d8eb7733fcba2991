"""Find classes by file name: a method or an evaluation is one file, and nothing else to edit."""

import importlib
import pkgutil
from types import ModuleType

from midway.errors import MidwayError


def available(package: str) -> tuple[str, ...]:
    """Names of the modules in a package, in alphabetical order; `base` is none of them."""
    folder = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder) if m.name != "base"))


def find(package: str, name: str) -> ModuleType:
    """Module `name` of a package.

    Raises:
        MidwayError: There is none; those that exist are named.

    """
    names = available(package)
    if name not in names:
        kind = package.rpartition(".")[2]
        raise MidwayError(f"{kind}: no '{name}'; there are {', '.join(names)}")
    return importlib.import_module(f"{package}.{name}")
