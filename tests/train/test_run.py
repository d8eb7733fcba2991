"""The folder of a run: what it takes, and what a resumed run may change."""

import math

import pytest

from midway.config import to_json
from midway.errors import MidwayError
from midway.train.run import check_run_folder, write_config

from .toy import run_config


def test_a_folder_with_files_is_not_mixed_with_a_new_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MidwayError, match=r"not empty: .*--run\.folder.*--resume"):
        check_run_folder(tmp_path, {}, resume=False)
    with pytest.raises(MidwayError, match="no run to resume"):
        check_run_folder(tmp_path / "nothing", {}, resume=True)


def test_a_resumed_run_may_change_its_length_and_hardware(tmp_path):
    write_config(tmp_path, {"run": to_json(run_config(tmp_path))})
    changed = run_config(
        tmp_path, steps=20, log_every=7, devices=2, accelerator="auto", compile=True, recompute=True
    )
    written = (tmp_path / "config.json").read_text()
    check_run_folder(tmp_path, {"run": to_json(changed)}, resume=True)
    assert (tmp_path / "config.json").read_text() == written  # a check changes nothing


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"optim": {"lr": 0.2, "betas": [0.9, 0.999]}}, "optim.lr is 0.1"),
        ({"optim": {"lr": 0.1, "betas": [0.8, 0.999]}}, "optim.betas"),
        ({"optim": {"betas": [0.9, 0.999]}}, "optim.lr"),
    ],
)
def test_a_resumed_run_may_change_nothing_else(tmp_path, config, name):
    write_config(tmp_path, {"optim": {"lr": 0.1, "betas": (0.9, 0.999)}})
    with pytest.raises(MidwayError, match=rf"{name}.*config\.json") as caught:
        check_run_folder(tmp_path, config, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["devices", "accumulate", "log_every"])
def test_a_count_below_one_is_refused(tmp_path, name):
    with pytest.raises(MidwayError, match=rf"run\.{name} = .*; give 1 or more"):
        run_config(tmp_path, **{name: 0})


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"steps": 0, "epochs": math.inf},
        {"steps": 0, "epochs": math.nan},
    ],
)
def test_a_number_out_of_range_is_refused(tmp_path, changes):
    with pytest.raises(MidwayError, match=r"run\.(seed|epochs)"):
        run_config(tmp_path, **changes)


@pytest.mark.parametrize("name", ["devices", "num_nodes", "accumulate"])
def test_a_configuration_from_elsewhere_cannot_ask_for_any_number_of_processes(tmp_path, name):
    with pytest.raises(MidwayError, match=rf"run: {name} 1000000000 is too large; give"):
        run_config(tmp_path, **{name: 10**9})
