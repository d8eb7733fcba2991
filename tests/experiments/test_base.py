import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.config import to_json
from midway.data.synthetic import WorldConfig, write_videos
from midway.errors import MidwayError
from midway.experiments.base import Experiment, experiment_from_json, experiments, train
from midway.experiments.camvid import midway_tiny
from midway.methods.base import build_method
from midway.methods.midway import MidwayConfig

NAMES = sorted(experiments())


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_builds_its_method_and_survives_json(name: str) -> None:
    experiment = experiments()[name]()
    with torch.device("meta"):
        build_method(experiment.method)
    values = json.loads(json.dumps(to_json(experiment)))
    assert experiment_from_json(values, where="test") == experiment
    assert experiment.run.folder == Path("runs") / name


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_documented(name: str) -> None:
    function = experiments()[name]
    module_doc = __import__(function.__module__, fromlist=["_"]).__doc__
    text = f"{module_doc}\n{function.__doc__}"
    for what in ("Command:", "Cost:", "Expect"):
        assert what in text, what


def test_the_published_run_has_its_length() -> None:
    experiment = experiments()["bdd100k.midway_vits"]()
    pairs = experiment.run.epochs * 70_000
    assert pairs == pytest.approx(21.0e6)
    assert experiment.data.batch_size == 200
    assert experiment.data.draws_per_clip == 5


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (
            "row1_base",
            {"latent_dynamics", "backward_layers", "refinement", "gates", "levels"},
        ),
        ("row2_latent_dynamics", {"backward_layers", "refinement", "gates", "levels"}),
        ("row3_backward_multi_level", {"refinement", "gates"}),
        ("row4_multi_level_refinement", {"backward_layers", "gates"}),
        ("row5_no_gating", {"gates"}),
        ("row6_full", set()),
        ("row7_no_backward", {"backward_layers"}),
        ("row8_no_multi_level", {"levels"}),
        ("row9_no_refinement", {"refinement"}),
    ],
)
def test_the_rows_of_table_3_change_what_their_marks_say(name: str, changed: set[str]) -> None:
    def dynamics(row: str) -> dict:
        method = experiments()[f"table3.{row}"]().method
        assert isinstance(method, MidwayConfig)
        return vars(method.network.dynamics)

    full, row = dynamics("row6_full"), dynamics(name)
    assert {field for field in full if full[field] != row[field]} == changed


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, WorldConfig(height=64, width=64, num_frames=40), seeds=range(3))
    return folder


def _small(videos: Path, folder: Path, **run: object) -> Experiment:
    experiment = midway_tiny()
    return replace(
        experiment,
        data=replace(experiment.data, root=str(videos), batch_size=2, num_workers=0),
        run=replace(
            experiment.run, folder=folder, log_every=1, checkpoint_every=2, **{"steps": 4} | run
        ),
    )


def test_a_run_folder_has_all_that_is_needed_and_can_be_loaded(
    videos: Path, tmp_path: Path
) -> None:
    import midway

    experiment = _small(videos, tmp_path / "run")
    summary = train(experiment)
    assert summary.steps == 4
    run = tmp_path / "run"
    assert experiment_from_json(json.loads((run / "config.json").read_text()), where="") == (
        experiment
    )
    assert (run / "environment.json").is_file()
    assert list(run.glob("events.out.tfevents.*"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    network = midway.load(run)
    assert isinstance(experiment.method, MidwayConfig)
    assert network.config == experiment.method.network


def test_a_resumed_run_equals_an_uninterrupted_one(videos: Path, tmp_path: Path) -> None:
    whole, halved = _small(videos, tmp_path / "whole"), _small(videos, tmp_path / "halved")
    train(whole)
    train(halved)
    (tmp_path / "halved" / "checkpoints" / "step_00000004.ckpt").unlink()
    train(halved, resume=True)

    def losses(run: str) -> list[float]:
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert losses("whole") == losses("halved")
    one, two = (
        torch.load(tmp_path / run / "checkpoints" / "step_00000004.ckpt", weights_only=True)
        for run in ("whole", "halved")
    )
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])


def test_a_run_begins_from_the_weights_of_another(videos: Path, tmp_path: Path) -> None:
    import midway

    before, after = _small(videos, tmp_path / "before"), _small(videos, tmp_path / "after")
    train(before)
    still = replace(
        after,
        method=replace(after.method, start=str(tmp_path / "before")),
        # As good as none, and the decay goes with it.
        optim=replace(after.optim, lr=1e-30, final_lr=0.0),
    )
    train(still)
    one, two = (midway.load(tmp_path / run).encoder.state_dict() for run in ("before", "after"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("missing", ["method", "data", "optim", "run"])
def test_a_configuration_without_a_part_is_told(missing: str) -> None:
    values = {name: part for name, part in to_json(midway_tiny()).items() if name != missing}
    with pytest.raises(MidwayError, match=f"no '{missing}'"):
        experiment_from_json(values, where="config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": 3}, "optim = 3 is no JSON object"),
        ({"method": "midway"}, "method = 'midway' is no JSON object"),
        ({"extra": {}}, "no field 'extra'"),
        ({"run": {"seed": 1}}, "config.json: run: no 'folder' in it"),
    ],
)
def test_a_damaged_configuration_is_told(change: dict, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        experiment_from_json(to_json(midway_tiny()) | change, where="config.json")
