"""500 mutated files over all doors: each ends in a result or in one line.

`python -m tests.fuzz 12000 --folder FOLDER` tries more.
"""

from collections import Counter

import pytest

from tests.fuzz import driver
from tests.fuzz.doors import DOORS
from tests.fuzz.driver import is_bad, run
from tests.fuzz.families import FAMILIES, INDEX, SHARES, counts
from tests.fuzz.seeds import CLASSES, FLOW_SUFFIXES, PNG_IDS, TRACKS, WEIGHTS, write_seeds

TOTAL = 500


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    pytest.importorskip("lance")
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    folder.mkdir()
    write_seeds(folder)
    return folder


@pytest.mark.slow
def test_mutated_files_end_in_a_result_or_one_line(seeds):
    families = counts(TOTAL)
    inputs = [(family, number, 0) for family, count in families.items() for number in range(count)]
    outcomes = list(run(inputs, seeds))
    assert [each for each in outcomes if is_bad(each)] == []
    found = Counter(each["outcome"] for each in outcomes)
    # With too strong or too weak mutations little of the code would run.
    assert min(found["read"], found["refused"]) > TOTAL // 8
    assert {each["door"] for each in outcomes} == DOORS.keys()


def test_every_door_reads_the_files_that_are_mutated(seeds):
    for door, paths in sound(seeds).items():
        for path in paths:
            DOORS[door](path)
    assert sound(seeds).keys() == DOORS.keys()


def sound(seeds):
    """Sound files by door."""
    videos, images = (sorted((seeds / name).iterdir()) for name in ("videos", "images"))
    ids = [seeds / "ids" / name for name in PNG_IDS]
    turned = ("exif.png", "rgb.jpg")  # refused where labels belong to them
    return {
        "video": videos,
        "decoding": videos,
        "picture": images,
        "labelled_picture": [path for path in images if path.name not in turned],
        "label": ids[:1],
        "mask": ids,
        "flow": [seeds / f"flow{suffix}" for suffix in FLOW_SUFFIXES],
        "tracks": [seeds / name for name in TRACKS],
        "signals": [seeds / "walk.signals.npz"],
        "network": [seeds / f"network{suffix}" for suffix in (".safetensors", ".pth")],
        "encoder": [seeds / "encoder.safetensors"],
        "others": [seeds / name for name, door in WEIGHTS.items() if door == "others"],
        "checkpoint": list((seeds / "checkpoints").iterdir()),
        "config": [seeds / "config.json"],
        "log": [seeds / "metrics.jsonl"],
        "results": [seeds / "results.json"],
        "class_list": [seeds / name for name in CLASSES],
        "clips": [seeds / "clips", seeds / "clips" / INDEX, seeds / "shard.tar"],
        "store": [seeds / "store.lance"],
    }


CRASHING = """
import os, sys
for line in sys.stdin:
    family, number, seed = line.split()
    if number == "1":
        os.abort()
    print('{"outcome": "read", "mb": 0, "number": ' + number + "}", flush=True)
"""


def test_a_crash_is_attributed_to_its_input_and_the_others_are_read(tmp_path, monkeypatch):
    script = tmp_path / "child.py"
    script.write_text(CRASHING)
    monkeypatch.setattr(driver, "CHILD", (str(script),))
    outcomes = list(run([("video", number, 0) for number in range(3)], tmp_path))
    assert [(each["number"], each["outcome"]) for each in outcomes] == [
        (0, "read"),
        (1, "crash"),
        (2, "read"),
    ]
    assert [is_bad(each) for each in outcomes] == [False, True, False]
    assert "rc -6" in outcomes[1]["text"]


def test_the_shares_of_all_families_are_a_whole():
    assert SHARES.keys() == FAMILIES.keys()
    assert sum(SHARES.values()) == pytest.approx(1)
