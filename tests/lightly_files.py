"""Files of lightly by themselves: its packages import torchvision, which nothing here needs."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest


def lightly_file(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load a file such as "loss.ibot_loss"; the test skips without lightly, but not in CI."""
    found = importlib.util.find_spec("lightly")
    if found is None or found.origin is None:
        reason = "lightly is not installed; `make setup` does so"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and it must be there in CI")
        pytest.skip(reason)
    path = Path(found.origin).parent / f"{name.replace('.', '/')}.py"
    spec = importlib.util.spec_from_file_location(f"lightly.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # By its full name, so that other files which import it do not import its packages.
    monkeypatch.setitem(sys.modules, f"lightly.{name}", module)
    spec.loader.exec_module(module)
    return module
