"""The presets have the numbers of the published table, and keep them through JSON."""

from dataclasses import replace

import pytest

from midway.config import to_json
from midway.errors import MidwayError
from midway.evals.readouts.segmentation_protocols import PROTOCOLS, config_from_json
from midway.models.weights.sources import EncoderSource

# dataset, readout, frozen, batch, iterations: EVALUATION table 2.2, one line a column.
TABLE = {
    "bdd100k-linear": ("bdd100k", "linear", True, 16, 60_000),
    "bdd100k-upernet": ("bdd100k", "upernet", True, 16, 60_000),
    "cityscapes-linear": ("cityscapes", "linear", True, 8, 40_000),
    "cityscapes-upernet": ("cityscapes", "upernet", True, 8, 40_000),
    "ade20k-upernet": ("ade20k", "upernet", False, 16, 160_000),
    "wt-sem-upernet": ("wt_sem", "upernet", False, 4, 160_000),
    "ade20k-linear": ("ade20k", "linear", True, 16, 60_000),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_resolved_configuration_has_the_numbers_of_the_table(name):
    dataset, kind, frozen, batch, iterations = TABLE[name]
    config = to_json(PROTOCOLS[name]())
    assert config["protocol"] == name
    data, readout, optim = config["data"], config["readout"], config["optim"]
    assert (data["dataset"], readout["kind"], readout["frozen"]) == (dataset, kind, frozen)
    assert (data["batch_size"], config["run"]["steps"]) == (batch, iterations)
    assert config["run"]["accumulate"] == 1
    assert (data["crop"], data["ratio"]) == ([512, 512], [0.5, 2.0])
    scenes = dataset in ("ade20k", "wt_sem")
    assert data["scale"] == ([2048, 512] if scenes else [2048, 1024])
    assert data["test_scale"] == ([2048, 512] if scenes else "native")
    is_linear = kind == "linear"
    assert readout["levels"] == ([3, 6, 9, 12] if is_linear else [4, 6, 8, 12])
    assert config["encoder"]["features"] == ("backward" if is_linear else "encoder")
    assert readout["auxiliary_weight"] == 0.4
    assert readout["layer_decay"] == (1.0 if frozen else 0.9)
    assert readout["drop_path"] == (0.0 if frozen else 0.1)
    assert (optim["lr"], optim["scale_lr"], optim["final_lr"]) == (3e-5, False, 0.0)
    assert (optim["schedule"], optim["power"], optim["warmup_steps"]) == ("poly", 1.0, 1500)
    assert (optim["weight_decay"], optim["final_weight_decay"]) == (0.05, 0.05)
    assert (optim["betas"], optim["clip"]) == ([0.9, 0.999], "none")
    inference = config["inference"]
    assert (inference["mode"], inference["window"], inference["stride"]) == (
        *("slide", [512, 512], [341, 341]),
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_configuration_comes_back_from_json(name):
    config = replace(PROTOCOLS[name](), encoder=EncoderSource(network="net.pth", weights="student"))
    assert config_from_json(to_json(config), where="config.json") == config


def test_a_configuration_of_something_else_is_told():
    with pytest.raises(MidwayError, match=r"config.json: has no 'data'; give the config.json"):
        config_from_json({"method": {}}, where="config.json")
    values = to_json(PROTOCOLS["camvid-linear"]())
    values["readout"]["levls"] = [1]
    with pytest.raises(MidwayError, match="did you mean 'levels'"):
        config_from_json(values, where="config.json")


def test_batches_of_one_are_refused_for_upernet():
    config = PROTOCOLS["wt-sem-upernet"]()
    with pytest.raises(MidwayError, match="batch norm needs 2 images"):
        replace(config, data=replace(config.data, batch_size=1))


def test_the_version_tells_what_is_measured_and_not_where():
    config = PROTOCOLS["bdd100k-linear"]()
    version = config.version()
    same = [
        replace(config, data=replace(config.data, root="elsewhere", num_workers=9)),
        replace(config, run=replace(config.run, devices=4, seed=3, log_every=1)),
        replace(config, encoder=EncoderSource(network="net.pth", features="backward")),
        replace(config, inference=replace(config.inference, batch_size=1)),
    ]
    assert {each.version() for each in same} == {version}
    others = [
        replace(config, data=replace(config.data, crop=(224, 224))),
        replace(config, run=replace(config.run, steps=100)),
        replace(config, optim=replace(config.optim, lr=1e-4)),
        replace(config, readout=replace(config.readout, levels=(12,))),
        replace(config, inference=replace(config.inference, mode="whole")),
        replace(config, encoder=EncoderSource(features="encoder")),
    ]
    assert len({version, *(each.version() for each in others)}) == 7
