"""Registry of modules by file name, so that a new method or evaluation needs only its file."""

import importlib
import pkgutil
from types import ModuleType

from midway.errors import MidwayError


def available(package: str) -> tuple[str, ...]:
    """Return the names of a package's modules in alphabetical order, without `base`."""
    folder = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder) if m.name != "base"))


def find(package: str, name: str) -> ModuleType:
    """Import the module `name` of a package.

    Raises:
        MidwayError: No such module; the message lists the existing ones.

    """
    names = available(package)
    if name not in names:
        kind = package.rpartition(".")[2]
        raise MidwayError(f"{kind}: no '{name}'; there are {', '.join(names)}")
    return importlib.import_module(f"{package}.{name}")
