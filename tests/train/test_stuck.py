"""A process that cannot run its handlers of signals ends all the same."""

import os
import signal
import subprocess
import sys
import time

import pytest

from midway.errors import INTERRUPTED
from midway.train import stuck

SCRIPT = """
import ctypes, signal, sys
from midway.train import stuck
stuck.STUCK_SECONDS, stuck.IMPATIENT_SECONDS = {seconds}
signal.signal(signal.SIGTERM, lambda number, frame: None)
with stuck.StuckWatch():
    print("ready", flush=True)
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)  # waits for itself, as for a rank that never answers
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("seconds", "signals"), [((0.5, 100), 1), ((100, 0.5), 2)], ids=["patient", "insisted"]
)
def test_a_process_that_waits_in_c_code_ends_after_signals(seconds, signals):
    command = [sys.executable, "-c", SCRIPT.format(seconds=seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        for _ in range(signals):
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
        assert process.wait() == INTERRUPTED
        (line,) = process.stderr.read().splitlines()
    assert line.startswith(b"midway: stopped while another process")
    assert line.endswith(b"--resume")


def test_a_handler_that_runs_keeps_the_process(monkeypatch):
    monkeypatch.setattr(stuck, "STUCK_SECONDS", 0.0)
    ended = []
    monkeypatch.setattr(stuck, "_end", lambda: ended.append(True))
    watch = stuck.StuckWatch()
    before = signal.signal(signal.SIGTERM, lambda number, frame: watch.handled())
    try:
        with watch:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not ended
    assert signal.set_wakeup_fd(-1) == -1
