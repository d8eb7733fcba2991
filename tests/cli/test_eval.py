"""`midway eval` finds the evaluations that there are."""

import pytest

from midway.cli import main
from midway.evals import flow_finetune
from midway.evals.readouts.flow_protocols import StartConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.weights.release import ReleaseHints


def test_without_a_name_it_lists_the_evaluations(capsys):
    with pytest.raises(SystemExit) as end:
        main(["eval"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "segmentation" in printed
    assert "knn_segmentation" in printed
    assert "segmentation_metrics" not in printed


def test_modules_that_are_no_evaluation_are_not_run(capsys):
    for name in ("segmentation_metrics", "nothing"):
        assert main(["eval", name]) == 2
        assert f"no evaluation '{name}'; there are" in capsys.readouterr().err


def test_help_names_the_protocols_and_then_the_fields_of_one(capsys):
    for words, expected in (
        (["segmentation", "--help"], "ade20k-upernet"),
        (["knn_segmentation", "--help"], "wt-sem"),
        (["segmentation", "--protocol", "ade20k-upernet", "--help-all"], "--readout.layer-decay"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["eval", *words])
        assert not end.value.code
        assert expected in capsys.readouterr().out


def test_flow_finetuning_starts_from_an_encoder_with_the_heads_and_dynamics_that_are_typed(
    monkeypatch,
):
    given = []
    monkeypatch.setattr(flow_finetune, "evaluate", given.append)  # returns nothing to report
    words = ["--network", "vit.safetensors", "--encoder-heads", "2"]
    words += ["--start.dynamics.levels", "1", "2", "--start.dynamics.midway-width", "24"]
    assert main(["eval", "flow_finetune", "--protocol", "synthetic", *words]) == 0
    (config,) = given
    assert config.start == StartConfig(
        network="vit.safetensors",
        dynamics=DynamicsConfig(levels=(1, 2), midway_width=24),
        release=ReleaseHints(encoder_heads=2),
    )
