"""Imports of commands: few for a help text, and no package that they do not need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos

MISMATCHED = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
"""Behaviour of a torchvision for CUDA beside a torch for CPUs."""
RUN = """
import sys
from midway.cli import main

words = sys.argv[1:]
while words:
    end = words.index("/")
    try:
        code = main(words[:end])
    except SystemExit as exit:
        code = exit.code
    print(words[:end], "ended with", code, file=sys.stderr)
    if code:
        sys.exit(code)
    words = words[end + 1 :]
print("imported:", *sys.modules)
"""


def _imported(*commands: str, path: Path | None = None) -> set[str]:
    """Modules that a new process has imported after commands, which all have to succeed.

    Args:
        commands: One after the other, as typed behind `midway`.
        path: Folder of packages that go before all others.

    """
    words = [word for command in commands for word in (*command.split(), "/")]
    environment = dict(os.environ)
    if path:
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{path}{os.pathsep}{before}" if before else str(path)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.splitlines()[-1].split()[1:]}


@pytest.fixture
def broken_torchvision(tmp_path: Path) -> Path:
    """Folder with a torchvision that is installed, but built for another torch."""
    package, about = tmp_path / "site/torchvision", tmp_path / "site/torchvision-0.28.0.dist-info"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MISMATCHED)
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    return tmp_path / "site"


def test_the_help_imports_neither_torch_nor_anything_else_that_is_large() -> None:
    imported = _imported("--help")
    assert "midway.cli" in imported
    assert not imported & {"torch", "numpy", "matplotlib", "av", "pydantic", "tyro", "rich", "PIL"}


def test_what_only_names_things_does_not_import_what_training_needs() -> None:
    imported = _imported("list", "train camvid.midway_tiny --help")
    assert "midway.methods.midway" in imported
    late = {"lightning_fabric", "tensorboard", "matplotlib", "scipy", "rich", "torch._dynamo"}
    assert not imported & late


@pytest.mark.slow
def test_a_torchvision_that_does_not_fit_torch_stops_no_command(
    broken_torchvision: Path, tmp_path: Path
) -> None:
    write_videos(tmp_path / "videos", WorldConfig(height=64, width=64, num_frames=40), seeds=[0])
    train = (
        f"train camvid.midway_tiny --data.root {tmp_path}/videos --run.folder {tmp_path}/run "
        "--data.batch-size 2 --data.num-workers 0 --run.steps 1"
    )
    protocol = "eval segmentation --protocol camvid-linear"
    commands = ("list", "eval --help", f"{protocol} --help", train, f"info {tmp_path}/run")
    assert "torchvision" not in _imported(*commands, path=broken_torchvision)
