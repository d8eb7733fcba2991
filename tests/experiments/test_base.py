import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.config import to_json
from midway.data.segmentation.sample import LabelsConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_segmentation_dataset, write_videos
from midway.errors import MidwayError
from midway.evals.probes.online_knn import KnnHealth
from midway.experiments.base import Experiment, experiment_from_json, experiments, train
from midway.experiments.camvid import midway_tiny
from midway.methods.base import build_method
from midway.methods.midway import MidwayConfig
from midway.train.run import write_config

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


def _labels(folder: Path, **changes: object) -> LabelsConfig:
    """Return labels of worlds that are in no training video."""
    if not folder.exists():
        world = WorldConfig(height=48, width=64, num_frames=2, fps=1.0)
        write_segmentation_dataset(folder, world, train_seeds=[10, 11], val_seeds=[12, 13])
    settings = {"dataset": "synthetic", "root": str(folder), "scale": (64, 48)}
    return LabelsConfig(**settings | changes)


def _run(folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Records of a run, and its last weights."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    saved = torch.load(folder / "checkpoints" / "step_00000004.ckpt", weights_only=True)
    return [json.loads(line) for line in lines], saved["model"]


def test_a_run_with_labels_logs_scores_and_trains_bit_for_bit_as_one_without(
    videos: Path, tmp_path: Path
) -> None:
    train(_small(videos, tmp_path / "without", health_every=2))
    scored = _small(videos, tmp_path / "with", health_every=2)
    train(replace(scored, labels=_labels(tmp_path / "labels")))
    (records, weights), (plain, same) = (_run(tmp_path / name) for name in ("with", "without"))
    assert [record["loss"] for record in records] == [record["loss"] for record in plain]
    assert all(torch.equal(weights[name], same[name]) for name in same)
    assert [record["step"] for record in records if "health/knn_miou" in record] == [1, 2, 4]
    assert all(0 < record.get("health/knn_miou", 1) < 100 for record in records)
    assert "health/knn_miou" not in {key for record in plain for key in record}


def test_a_resumed_run_equals_an_uninterrupted_one_scores_included(
    videos: Path, tmp_path: Path
) -> None:
    labels = _labels(tmp_path / "labels")
    for name in ("whole", "halved"):
        run = _small(videos, tmp_path / name, health_every=1)
        train(replace(run, labels=labels))
    (tmp_path / "halved" / "checkpoints" / "step_00000004.ckpt").unlink()
    values = json.loads((tmp_path / "halved" / "config.json").read_text())
    train(experiment_from_json(values, where="config.json"), resume=True)
    (whole, weights), (halved, same) = (_run(tmp_path / name) for name in ("whole", "halved"))
    for name in ("loss", "health/knn_miou"):
        assert [record[name] for record in halved] == [record[name] for record in whole]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_the_score_is_that_of_the_encoder_that_the_run_saved(videos: Path, tmp_path: Path) -> None:
    import midway

    labels = _labels(tmp_path / "labels")
    run = _small(videos, tmp_path / "run", health_every=2)
    train(replace(run, labels=labels))
    health = KnnHealth(labels, midway.load(tmp_path / "run").encoder, run.run)
    health.read()
    assert _run(tmp_path / "run")[0][-1]["health/knn_miou"] == health()["knn_miou"]


def test_labels_may_come_and_go_when_a_run_is_resumed(videos: Path, tmp_path: Path) -> None:
    run = _small(videos, tmp_path / "run", steps=1, health_every=1)
    train(run)
    config = tmp_path / "run" / "config.json"
    values = json.loads(config.read_text())
    del values["labels"]  # as a version wrote it that knew none
    config.write_text(json.dumps(values))
    labelled = replace(run, labels=_labels(tmp_path / "labels"))
    for steps, experiment in ((2, labelled), (3, run)):
        train(replace(experiment, run=replace(run.run, steps=steps)), resume=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert ["health/knn_miou" in json.loads(line) for line in lines] == [False, True, False]


def test_labels_that_cannot_be_read_stop_a_run_before_it_leaves_anything(
    videos: Path, tmp_path: Path
) -> None:
    run = _small(videos, tmp_path / "run")
    for labels, message in (
        (_labels(tmp_path / "labels", root=str(videos)), "not the layout of the synthetic world"),
        (_labels(tmp_path / "labels", root=str(tmp_path / "none")), "found no such folder"),
        (_labels(tmp_path / "labels", dataset="camvid"), "not the layout of CamVid"),
    ):
        with pytest.raises(MidwayError, match=message):
            train(replace(run, labels=labels))
        assert not run.run.folder.exists()


@pytest.mark.parametrize("stopped_before_its_first_checkpoint", [False, True])
def test_a_run_begins_from_the_weights_of_another(
    videos: Path, tmp_path: Path, stopped_before_its_first_checkpoint: bool
) -> None:
    import midway

    before, after = _small(videos, tmp_path / "before"), _small(videos, tmp_path / "after")
    train(before)
    still = replace(
        after,
        method=replace(after.method, start=str(tmp_path / "before")),
        # As good as none, and the decay goes with it.
        optim=replace(after.optim, lr=1e-30, final_lr=0.0),
    )
    if stopped_before_its_first_checkpoint:
        write_config(tmp_path / "after", to_json(still))
    train(still, resume=stopped_before_its_first_checkpoint)
    one, two = (midway.load(tmp_path / run).encoder.state_dict() for run in ("before", "after"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_labels_that_no_metric_uses_are_an_error(videos: Path, tmp_path: Path) -> None:
    run = _small(videos, tmp_path / "run", health_every=0)
    with pytest.raises(MidwayError, match="is not used"):
        train(replace(run, labels=_labels(tmp_path / "labels")))


@pytest.mark.parametrize("missing", ["method", "data", "optim", "run"])
def test_a_configuration_without_a_part_is_an_error(missing: str) -> None:
    values = {name: part for name, part in to_json(midway_tiny()).items() if name != missing}
    with pytest.raises(MidwayError, match=f"'{missing}' is missing"):
        experiment_from_json(values, where="config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": 3}, "optim = 3 is not a JSON object"),
        ({"method": "midway"}, "method = 'midway' is not a JSON object"),
        ({"extra": {}}, "no field 'extra'"),
        ({"run": {"seed": 1}}, "config.json: run: 'folder' is missing"),
    ],
)
def test_a_damaged_configuration_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        experiment_from_json(to_json(midway_tiny()) | change, where="config.json")
