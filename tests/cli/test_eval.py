"""`midway eval` finds the evaluations that there are."""

import pytest

from midway.cli import main


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
        (["segmentation", "--protocol", "ade20k-upernet", "--help"], "--readout.layer-decay"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["eval", *words])
        assert not end.value.code
        assert expected in capsys.readouterr().out
