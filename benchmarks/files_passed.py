"""Count the source files of midway in which a command calls functions.

    python benchmarks/files_passed.py train synthetic.midway_tiny --data.root videos --run.steps 2

Only the main process is counted: with ``--data.num-workers 0`` it also reads the data.
"""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import midway
from midway.cli import main

SOURCE = Path(midway.__file__).parent


def count(words: list[str]) -> Counter[str]:
    """Run a command and count the calls into each file."""
    calls: Counter[str] = Counter()

    importing = 0

    def look(frame: FrameType, event: str, _: object) -> None:
        # Calls made while a module is imported do not count.
        nonlocal importing
        is_module = frame.f_code.co_name == "<module>"
        importing += is_module * ((event == "call") - (event == "return"))
        if event == "call" and not importing:
            calls[frame.f_code.co_filename] += 1

    sys.setprofile(look)
    try:
        main(words)
    finally:
        sys.setprofile(None)
    inside = {name: n for name, n in calls.items() if Path(name).is_relative_to(SOURCE)}
    return Counter({str(Path(name).relative_to(SOURCE)): n for name, n in inside.items()})


if __name__ == "__main__":
    passed = count(sys.argv[1:])
    for name, calls in sorted(passed.items()):
        print(f"{calls:8d}  {name}")  # noqa: T201
    print(f"{len(passed)} files")  # noqa: T201
