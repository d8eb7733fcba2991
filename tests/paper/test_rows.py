"""Rows of tables 1 to 7: their commands parse, and their networks and numbers are the paper's."""

import json
from pathlib import Path

import pytest
import torch

from midway.cli.eval import _start
from midway.cli.options import parse
from midway.experiments.base import experiments
from midway.methods.base import build_method
from midway.methods.midway import Midway
from midway.models.encoders.backward import BackwardEncoder
from midway.paper.evaluations import Evaluation
from midway.paper.rows import TABLES, Row
from midway.paper.steps import Folders, samples_of, steps_of, video_of
from midway.registry import find

FOLDERS = Folders(data=Path("data"), runs=Path("runs/paper"))
ROWS = [row for rows in TABLES.values() for row in rows]
EVALUATIONS = {each.command: each for row in ROWS for each in row.evaluations}
PRESETS = sorted({row.preset for row in ROWS})


def config_of(evaluation: Evaluation):
    name, *words = evaluation.command
    config, about, rest, _ = _start(find("midway.evals", name), words, name)
    return parse(type(config), rest, prog=name, default=config, about=about)


@pytest.mark.parametrize("evaluation", EVALUATIONS.values(), ids=lambda each: each.name)
def test_every_evaluation_parses(evaluation):
    config = config_of(evaluation)
    assert config.protocol == evaluation.command[2]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_network_builds_and_has_the_features_that_are_read(preset):
    experiment = experiments()[preset]()
    with torch.device("meta"):
        method = build_method(experiment.method)
        image = torch.zeros(1, 3, 224, 224)
    for evaluation in {each for row in ROWS if row.preset == preset for each in row.evaluations}:
        config = config_of(evaluation)
        if evaluation.command[0] != "segmentation":
            continue
        encoder = method.encoders.get(config.encoder.weights) or next(
            iter(method.encoders.values())
        )
        if config.encoder.features == "backward":
            assert isinstance(method, Midway)
            network = method.network
            encoder = BackwardEncoder(network.encoder, network.dynamics)
        if config.encoder.features == "static_clip":
            continue  # the encoder sees clips; its wrapper has the same levels
        maps = encoder.eval().maps(image, config.readout.levels)
        assert len(maps) == len(config.readout.levels)


def test_samples_are_those_of_the_paper():
    """70,000 pairs an epoch on BDD100K; iBOT sees 800 epochs."""
    found = {
        row.preset: samples_of(experiments()[row.preset](), video_of(row))
        for row in TABLES["table1"] + TABLES["table2"]
    }
    assert found["bdd100k.midway_vits"] == 300 * 70_000
    assert found["bdd100k.ibot_vits"] == 800 * 70_000
    assert found["walking_tours.midway_vits"] == 100 * 194_000


def test_rows_share_runs_but_no_evaluation_of_another_kind():
    """A folder of an evaluation belongs to one command, whatever the table."""
    commands: dict[Path, set[tuple[str, ...]]] = {}
    for row in ROWS:
        for step in steps_of(row, FOLDERS):
            commands.setdefault(step.folder, set()).add(step.words)
    assert all(len(each) == 1 for each in commands.values())


def test_numbers_are_those_of_the_sheet(shared_spec):
    sheet = json.loads((shared_spec / "tables.json").read_text())
    for table, rows in TABLES.items():
        assert len(rows) == len(sheet[table]["rows"])
        for row, theirs in zip(rows, sheet[table]["rows"], strict=True):
            numbers = [n for n in row.numbers if n is not None]
            assert numbers == _numbers(table, theirs), row.name


def _numbers(table: str, row: list) -> list[float]:
    first = {"table3": 7, "table5": 1}.get(table, 3)
    return [value for value in row[first:] if value is not None]


def test_a_row_refuses_numbers_without_a_metric():
    row = TABLES["table6"][0]
    with pytest.raises(AssertionError):
        Row(name="x", preset=row.preset, evaluations=row.evaluations, numbers=(1.0,))
