"""A browser for all tests of the page, and small networks and clips."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from midway.demo import clips, writer
from midway.demo.writer import Shown
from tests.demo.browser import ARGUMENTS
from tests.models.networks import random_network


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it skip without it, and fail in CI."""
    path, is_installed = shutil.which("chromium"), find_spec("playwright") is not None
    if path is None or not is_installed:
        reason = "chromium or playwright is missing; see .ci/system-packages.sh"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; they must be there in CI")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def _small_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bundled clip in the size that networks see, which takes a moment to render."""
    monkeypatch.setattr(clips, "ENLARGED", 1)
    monkeypatch.setattr(writer, "BUNDLED", (replace(clips.CROWD, title="Toy"),))


@pytest.fixture
def shown() -> Shown:
    """A random network that the server computes with."""
    torch.manual_seed(0)
    network = random_network()
    return Shown(name="random", network=network, level=2, compute="server")
