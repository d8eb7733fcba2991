"""Fuzz of all doors: `python -m tests.fuzz 12000 --folder fuzz` writes outcomes and prints counts.

Outcomes are appended to FOLDER/outcomes.jsonl, so that an interrupted run continues; inputs that
end in a crash, hang, traceback, several lines or much memory are kept in FOLDER/bad.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.driver import is_bad, run
from tests.fuzz.families import Maker, counts
from tests.fuzz.seeds import write_seeds

CHUNK = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", action="append", help="only these families")
    options = parser.parse_args()
    seeds, log = options.folder / "seeds", options.folder / "outcomes.jsonl"
    if not (seeds / "complete").is_file():
        shutil.rmtree(seeds, ignore_errors=True)
        seeds.mkdir(parents=True)
        write_seeds(seeds.absolute())
        (seeds / "complete").touch()
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    known = {(each["family"], each["number"], each["seed"]) for each in done}
    for family, count in counts(options.count).items():
        if options.family and family not in options.family:
            continue
        inputs = [(family, number, options.seed) for number in range(count)]
        inputs = [each for each in inputs if each not in known]
        for start in range(0, len(inputs), CHUNK):
            for outcome in run(inputs[start : start + CHUNK], seeds.absolute()):
                done.append(outcome)
                with log.open("a") as file:
                    file.write(json.dumps(outcome) + "\n")
                if is_bad(outcome):
                    _keep(outcome, options.folder)
        sys.stdout.write(f"{family}: {dict(Counter(_of(done, family)))}\n")
        sys.stdout.flush()


def _of(done: list[dict[str, Any]], family: str) -> list[str]:
    return [
        "memory" if is_bad(each) and each["outcome"] in ("read", "refused") else each["outcome"]
        for each in done
        if each["family"] == family
    ]


def _keep(outcome: dict[str, Any], folder: Path) -> None:
    place = (outcome["family"], outcome["number"], outcome["seed"])
    scratch = folder / "bad" / "_".join(map(str, place))
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    Maker(folder / "seeds", scratch).make(*place)


if __name__ == "__main__":
    main()
