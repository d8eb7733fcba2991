"""Command ``midway paper``: plans, runs that continue, and numbers beside the paper's."""

import json
from pathlib import Path

import pytest

from midway.cli import main
from midway.paper import steps
from midway.paper.rows import TABLES


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    data, runs = tmp_path / "data", tmp_path / "runs"
    return ["--data", str(data), "--runs", str(runs)]


def test_a_plan_names_commands_data_cost_and_numbers(capsys, places):
    assert main(["paper", "table1", "--row", "DINO ViT-S", "--plan", *places, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["cost"]["samples"] == 21_000_000
    assert [words[1] for words in row["commands"]] == ["train", *["eval"] * 5]
    assert {each["title"] for each in row["data"]} >= {"BDD100K videos", "MPI-Sintel"}
    assert row["numbers"][0] == {
        "metric": "BDD100K linear mIoU",
        "paper": 36.7,
        "ours": None,
    }


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_a_plan(capsys, monkeypatch, table, places):
    monkeypatch.setattr(steps, "flops_per_sample", lambda method: 1e9)  # takes a second each
    assert main(["paper", table, "--plan", *places]) == 0
    out = capsys.readouterr().out
    for row in TABLES[table]:
        assert row.name in out
    assert "not run" in out


def test_numbers_that_were_made_stand_beside_the_papers(capsys, places):
    runs = Path(places[3])
    folder = runs / "bdd100k.midway_vits-flow"
    folder.mkdir(parents=True)
    results = {
        "renderings": {"clean": 4.0, "final": 5.0},
        "tests": {"things test": {"renderings": {"clean": 7.0, "final": 6.5}}},
    }
    (folder / "results.json").write_text(json.dumps(results))
    main(["paper", "table1", "--row", "Midway ViT-S", "--plan", *places, "--json"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [each["ours"] for each in row["numbers"][-4:]] == [7.0, 6.5, 4.0, 5.0]


def test_steps_run_in_turn_continue_and_are_not_repeated(capsys, monkeypatch, places):
    data, runs = Path(places[1]), Path(places[3])
    for each in ("walking_tours/venice.mp4", "ade20k"):
        (data / each).mkdir(parents=True)
    seen: list[tuple[str, ...]] = []
    codes = iter([0, 3, 0, 0, 0])

    def run(words):
        seen.append(tuple(words[3:6]))
        code = next(codes)
        folder = Path(words[words.index("--run.folder") + 1] if "--run.folder" in words else "")
        if folder.name:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("{}")
        if code == 0 and "eval" in words:
            made = folder if folder.name else Path(words[-1])
            (made / "results.json").write_text('{"miou": 12.5, "accuracy": 61.0}')
        return type("Ended", (), {"wait": lambda self: code})()

    monkeypatch.setattr(steps.subprocess, "Popen", run)
    command = ["paper", "table6", "--row", "Midway", *places]
    assert main(command) == 3  # the readout was interrupted
    assert main(command) == 0
    assert main([*command, "--json"]) == 0
    run_folder = str(runs / "walking_tours.midway_vits")
    assert seen[0][:2] == ("train", "walking_tours.midway_vits")
    assert seen[1][:2] == ("eval", "segmentation")
    assert seen[2] == ("train", "--resume", run_folder)
    assert seen[3] == ("eval", "segmentation", "--resume")
    assert len(seen) == 5  # the training is asked for its end each time, the readout is done
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [each["ours"] for each in row["numbers"]] == [12.5, 61.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table8", "--plan"], "no table 'table8'; there are table1"),
        (["table1", "--row", "ViT", "--plan"], "--row ViT: the rows of table1 are PooDLe R50"),
        (["table6", "--row", "Midway"], "Walking Tours Venice is missing"),
    ],
)
def test_a_wrong_name_or_missing_data_is_one_line(capsys, words, message, places):
    assert main(["paper", *words, *places]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_interruption_waits_for_the_commands_checkpoint(monkeypatch, tmp_path):
    """SIGTERM reaches `midway paper` alone; the training must not be killed."""
    calls: list[str] = []

    class Training:
        def __init__(self, words):
            self.waits = iter([KeyboardInterrupt, 3])

        def wait(self):
            calls.append("wait")
            if (ended := next(self.waits)) is KeyboardInterrupt:
                raise KeyboardInterrupt
            return ended

        def terminate(self):
            calls.append("terminate")

    monkeypatch.setattr(steps.subprocess, "Popen", Training)
    step = steps.Step(words=("train",), folder=tmp_path, resumed=("train", "--resume"))
    assert step.run() == 3
    assert calls == ["wait", "terminate", "wait"]
