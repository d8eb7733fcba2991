"""Lock of a run folder: one writer at a time, also against a resume, and free after a kill."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from lightning_fabric import Fabric

from midway.errors import MidwayError
from midway.train.launch import on_first_rank
from midway.train.lock import LOCK_NAME, locked
from midway.train.training import _claim

HOLD = """
import sys, time
from pathlib import Path
from midway.train.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_has_one_writer_who_is_named(tmp_path):
    folder = tmp_path / "new" / "run"
    with another_process_holds(folder) as process:
        with (
            pytest.raises(MidwayError, match=rf"process {process.pid} on .* is writing; wait"),
            locked(folder),
        ):
            pass
        assert [path.name for path in folder.iterdir()] == [LOCK_NAME]


def test_a_killed_writer_holds_nothing(tmp_path):
    with another_process_holds(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with locked(tmp_path):
        pass


def test_the_lock_leaves_nothing_behind_and_can_be_taken_again(tmp_path):
    folder = tmp_path / "run"
    for _ in range(2):
        with locked(folder):
            assert (folder / LOCK_NAME).exists()
        assert not folder.exists()
    with locked(folder):
        (folder / "config.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_neither_a_new_run_nor_a_resume_enters_the_folder_of_a_run_that_lives(tmp_path):
    fabric = Fabric(accelerator="cpu", devices=1)
    for resume in (False, True):
        with another_process_holds(tmp_path), ExitStack() as stack:
            if resume:
                (tmp_path / "config.json").write_text(json.dumps({}))
            claim = partial(_claim, stack, tmp_path, {}, resume=resume)
            with pytest.raises(MidwayError, match="is writing; wait until it ends"):
                on_first_rank(fabric, claim)
