"""Reader of mutants, run in a process of its own: a crash then ends neither tests nor the driver.

`python -m tests.fuzz.child SEEDS SCRATCH` reads lines "FAMILY NUMBER SEED" and answers each by a
line of JSON before it is read and one with its outcome.
"""

import faulthandler
import json
import logging
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

from midway.errors import MidwayError, printable
from tests.fuzz.doors import DOORS, remove
from tests.fuzz.families import Maker

LIMIT_BYTES = 6 * 2**30
"""Address space of the process, torch's libraries included; what it uses is measured apart."""
INPUT_SECONDS = 25.0


class Hang(BaseException):
    """An input that is not read in time; no `except Exception` catches it."""


def main(seeds: Path, scratch: Path) -> None:
    faulthandler.enable()
    # A crash must not write the memory of the process to the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, _hang)
    maker = Maker(seeds, scratch)
    for line in sys.stdin:
        family, number, seed = line.split()
        door, path = maker.make(family, int(number), int(seed))
        place = {"family": family, "number": int(number), "seed": int(seed), "door": door}
        _print(place)
        _print(place | {"name": path.name} | _outcome(door, path))
        remove(path)


def _outcome(door: str, path: Path) -> dict[str, Any]:
    # Resets the peak of resident memory to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _resident_mb("VmRSS"), time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, INPUT_SECONDS)
    try:
        DOORS[door](path)
        outcome, text = "read", ""
    except MidwayError as error:
        text = str(error)
        outcome = "refused" if text == printable(text) else "lines"
    except Hang:
        outcome, text = "hang", "".join(traceback.format_exc().splitlines(True)[-9:])
    except BaseException:
        outcome, text = "traceback", "".join(traceback.format_exc().splitlines(True)[-14:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {
        "outcome": outcome,
        "text": text[:2000],
        "seconds": round(time.perf_counter() - start, 2),
        "mb": _resident_mb("VmHWM") - before,
    }


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _resident_mb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


def _print(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    shutil.rmtree(sys.argv[2], ignore_errors=True)
