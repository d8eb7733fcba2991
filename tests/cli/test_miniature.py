"""Command ``midway paper miniature``: plan, restricted runs, budget and page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.cli import main
from midway.cli import miniature as command
from midway.errors import MidwayError
from midway.paper.miniature.protocol import PROTOCOL
from midway.paper.miniature.tables import BEGIN, END
from tests.paper.miniature.micro import MICRO


def options_in(folder: Path, **changes) -> command.Options:
    places = {"folder": folder / "work", "records": folder / "records"}
    return command.Options(**places, **changes)


def test_the_plan_lists_the_cells_of_an_arm_with_those_that_choose_for_it(capsys, tmp_path):
    words = ["paper", "miniature", "--plan", "--records", str(tmp_path), "--arm", "gap-0", "--json"]
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["protocol"] == PROTOCOL.hash()
    assert [(each["cell"], each["state"]) for each in plan["cells"]] == [
        ("choose-synthetic-midway-100-trial0", "to run"),
        ("choose-synthetic-midway-100-trial1", "to run"),
        *((f"report-{d}-gap-0-{s}", "waits for its trials") for s in range(3) for d in DATASETS),
    ]


DATASETS = ("camvid", "synthetic")


def test_the_long_protocol_has_few_arms_and_records_of_its_own(tmp_path):
    options = options_in(tmp_path, arm="filters", dataset="synthetic", seed=0, long=True)
    few = {"arms": ("filters", "mae"), "max_seeds": 1, "trials": MICRO.trials[1:]}
    long = replace(MICRO, window_readout=32, **few)
    assert command.main(options, MICRO, long)["unfinished"] == []
    (record,) = (tmp_path / "records" / "long").iterdir()
    assert json.loads(record.read_text())["scores"]["windows"] > 0
    # A trained arm has a single trial, which needs no choice.
    plan = command.main(replace(options, arm="", plan=True), MICRO, long)
    assert [(each["cell"], each["state"]) for each in plan["cells"]] == [
        ("report-synthetic-filters-0", "done"),
        ("report-synthetic-mae-0", "to run"),
    ]


def test_a_run_chooses_reports_and_does_not_repeat(tmp_path, capsys):
    threads = torch.get_num_threads()
    options = options_in(tmp_path, arm="mae", dataset="synthetic", seed=0)
    assert command.main(options, MICRO)["unfinished"] == []
    done = {path.name: path.read_text() for path in (tmp_path / "records").iterdir()}
    assert {*done} == {
        "choose-synthetic-mae-100-trial0.json",
        "choose-synthetic-mae-100-trial1.json",
        "report-synthetic-mae-0.json",
    }
    capsys.readouterr()
    assert command.main(options, MICRO)["unfinished"] == []
    assert capsys.readouterr().out == ""
    assert done == {path.name: path.read_text() for path in (tmp_path / "records").iterdir()}
    torch.set_num_threads(threads)


def test_a_budget_leaves_cells_unfinished_and_says_so(tmp_path, capsys):
    threads = torch.get_num_threads()
    options = options_in(tmp_path, arm="mae", dataset="synthetic", seed=0, budget=1e-9)
    found = command.main(options, MICRO)
    assert found["unfinished"] == [f"choose-synthetic-mae-100-trial{n}" for n in range(2)]
    assert found["exit_code"] == 3
    assert "continue by the same command" in capsys.readouterr().out
    torch.set_num_threads(threads)


def test_a_signal_ends_the_command_and_not_the_cell_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "run_cell", lambda *_, **__: None)
    found = command.main(options_in(tmp_path, arm="mae"), MICRO)
    assert found["unfinished"] == ["choose-synthetic-mae-100-trial0"]
    assert found["exit_code"] == 3


def test_tables_are_written_into_the_page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"above\n{BEGIN}\n{END}\nbelow\n")
    options = options_in(tmp_path, tables=True, page=path)
    assert command.main(options)["records"] == 0
    text = path.read_text()
    assert text.startswith("above")
    assert text.endswith("below\n")
    assert f"`{PROTOCOL.hash()}`" in text
    with pytest.raises(MidwayError, match="give its path"):
        command.main(replace(options, page=tmp_path / "none.md"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "midwya"], "there is no such arm; there are untrained, filters"),
        (["--long", "--arm", "mae"], "--arm mae: is not run with --long; choose from untrained,"),
        (["--budget", "-1"], "give 0 minutes or more"),
        (["--dataset", "camvid", "--arm", "untrained"], "no folder is given; add --camvid DIR"),
        (["--dataset", "camvid", "--arm", "filters", "--camvid", "none"], "no images of CamVid"),
    ],
)
def test_bad_options_are_one_line(capsys, tmp_path, words, message):
    places = ["--records", str(tmp_path / "records"), "--folder", str(tmp_path / "work")]
    assert main(["paper", "miniature", *words, *places]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
