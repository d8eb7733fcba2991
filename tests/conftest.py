"""What all tests share: real data if it is at hand, and one torch thread."""

import os
from pathlib import Path

import pytest
import torch

collect_ignore = ["written_by_0_1"]  # made with an older version of the package
SHARED = Path(__file__).parents[2] / "shared"


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        reason = f"real data not at hand: no {name} folder beside the checkout"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; it must be there in CI")
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos, frames, flow and labels; tests that need it skip without it."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_parity() -> Path:
    """Folder of golden numbers of the published network; tests that need it skip without it."""
    return _shared("parity")


@pytest.fixture(scope="session")
def shared_spec() -> Path:
    """Folder of the paper's numbers; tests that need it skip without it."""
    return _shared("spec")


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_worker() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
