"""Every `results.json` names protocol, weights, software, hardware, date, command and time."""

import hashlib
import json
from types import SimpleNamespace

import torch

from midway.evals.results import (
    NO_WEIGHTS,
    complete,
    protocol_version,
    weights_of,
    weights_of_flow,
    write_results,
)
from midway.models.flow.network import BEST, LAST


def test_results_are_completed_and_written_as_json(tmp_path):
    opened = SimpleNamespace(weights_sha256="12", file="net.pth", file_sha256="34")
    results = complete(
        {"epe": 1.5},
        protocol="flow",
        version_hash=protocol_version(1, {"split": "all"}),
        weights=weights_of(opened),
        device=torch.device("cpu"),
        seconds=2.0,
    )
    write_results(tmp_path / "new", results)
    assert json.loads((tmp_path / "new/results.json").read_text()) == results
    assert results["protocol"] == {"name": "flow", "version": protocol_version(1, {"split": "all"})}
    assert [results[name] for name in ("epe", "seconds", "weights_sha256")] == [1.5, 2.0, "12"]
    assert (results["checkpoint"], results["checkpoint_sha256"]) == ("net.pth", "34")
    assert results["environment"]["device"] == "cpu"
    assert {"command", "torch", "python", "platform"} <= results["environment"].keys()
    assert results["date"] == results["environment"]["date"]


def test_json_never_holds_nan(tmp_path):
    measured = {"epe": float("nan"), "videos": [{"j": float("inf")}, (1.5, float("-inf"))]}
    results = complete(
        measured,
        protocol="flow",
        version_hash="1",
        weights=NO_WEIGHTS,
        device=torch.device("cpu"),
        seconds=2.0,
    )
    assert (results["epe"], results["videos"]) == (None, [{"j": None}, [1.5, None]])
    write_results(tmp_path, {"epe": float("nan")})
    assert (tmp_path / "results.json").read_text().split() == ["{", '"epe":', "null", "}"]


def test_the_version_changes_with_code_and_settings_and_not_with_their_order():
    version = protocol_version(1, {"a": 1, "b": 2})
    assert version == protocol_version(1, {"b": 2, "a": 1})
    assert version not in (protocol_version(2, {"a": 1, "b": 2}), protocol_version(1, {"a": 1}))


def test_weights_of_a_flow_network_are_those_of_its_best_file(tmp_path):
    for number, name in enumerate((BEST, LAST)):
        (tmp_path / name).write_bytes(bytes([number]))
    found = weights_of_flow(tmp_path)
    assert found.checkpoint == str(tmp_path / BEST)
    assert found.checkpoint_sha256 == hashlib.sha256(bytes([0])).hexdigest()
    assert weights_of_flow(tmp_path / BEST) == found
    assert weights_of_flow(tmp_path / LAST) != found
