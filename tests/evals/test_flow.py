"""Evaluating flow: zero flow on real pairs equals a slow loop; files, pictures and errors."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli.options import parse
from midway.data.flow.datasets import FLOW_SETS
from midway.data.flow.files import is_known, read_flow
from midway.errors import MidwayError
from midway.evals.flow import Dataset, FlowRoot, evaluate
from midway.evals.readouts.flow_scores import report
from midway.models.flow.network import FlowNetwork, save_flow_network
from midway.models.flow.predictor import FlowMethod
from midway.models.weights.save import save
from tests.data.flow import made_flow_sets as made
from tests.models.flow.test_network import CONFIG
from tests.models.networks import random_network

ZERO = FlowMethod(method="zero")
FLOWS = {
    "middlebury": ("middlebury", "*/flow10.flo", 6),
    "chairs": ("flyingchairs", "*-gt.flo", 6),
    "sintel": ("sintel", "flow/*/*.flo", 5),
}


def mean_length(path: Path) -> float:
    """Mean length of the known vectors of a .flo file, read and added up without the package."""
    width, height = np.fromfile(path, "<i4", count=2, offset=4).tolist()
    numbers = np.fromfile(path, "<f4", offset=12).tolist()
    assert len(numbers) == 2 * width * height
    known = [
        math.hypot(u, v) for u, v in zip(numbers[::2], numbers[1::2], strict=True) if abs(u) < 1e9
    ]
    return sum(known) / len(known)


@pytest.mark.parametrize("dataset", FLOWS)
def test_zero_flow_on_real_pairs_has_the_error_of_a_slow_loop(shared_data: Path, dataset):
    folder, pattern, count = FLOWS[dataset]
    root = shared_data / "flow" / folder
    words = ["--dataset", dataset, "--data.root", str(root), "--method", "zero"]
    results = parse(evaluate, words, prog="midway eval flow")
    lengths = {path: mean_length(path) for path in sorted(root.glob(pattern))}
    assert len(lengths) == count
    # One field of Sintel counts as often as it is rendered.
    repeats = [
        sum((root / r / path.parent.name).is_dir() for r in ("clean", "final")) or 1
        for path in lengths
    ]
    expected = sum(n * x for n, x in zip(repeats, lengths.values(), strict=True)) / sum(repeats)
    assert results["pairs"] == sum(repeats)
    assert results["epe"] == pytest.approx(expected, rel=1e-6)
    json.dumps(results)


def test_zero_flow_on_the_real_sparse_pair_counts_its_valid_pixels(shared_data: Path):
    root = shared_data / "flow/kitti"
    results = evaluate(dataset="kitti", data=FlowRoot(root=root), how=ZERO)
    assert results["pairs"] == 1
    assert results["epe"] == pytest.approx(51.0, abs=0.05)
    # Pillow decodes the high byte of each number: u and v to 4 pixels, and no validity.
    path = root / "flow/000000_10.png"
    with Image.open(path) as image:
        high = np.asarray(image.convert("RGB")).astype(float)
    u, v = (256 * high[is_known(read_flow(path))][:, :2].T + 128 - 32768) / 64
    assert results["epe"] == pytest.approx(np.hypot(u, v).mean(), abs=0.2)


@pytest.fixture
def sintel(tmp_path: Path):
    made.write_sintel(tmp_path / "Sintel")
    return FlowRoot(root=tmp_path / "Sintel")


def test_the_folder_holds_results_and_pictures(sintel, tmp_path: Path):
    folder = tmp_path / "out"
    results = evaluate(
        dataset="sintel",
        data=sintel,
        split="subval-clean",
        how=ZERO,
        folder=folder,
        num_pictures=2,
    )
    written = json.loads((folder / "results.json").read_text())
    assert {name: written[name] for name in results} == json.loads(json.dumps(results))
    assert written["epe"] == pytest.approx(math.hypot(*made.SHIFT))
    assert written["sequences"].keys() == {"temple_2", "temple_3"}
    assert written["renderings"].keys() == {"clean"}
    assert written["by_pixels"]["epe_40"] is None
    assert written["weights_sha256"] is None
    assert written["protocol"]["name"] == "flow sintel subval-clean"
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [
        "00000_temple_2_clean_frame_0001.png",
        "00003_temple_3_clean_frame_0002.png",
    ]
    assert "EPE 3.606 px, mean over 4 pairs" in report(results)


def test_pixels_find_the_shift_of_the_dummies(sintel):
    results = evaluate(
        dataset="sintel", data=sintel, split="subval-clean", how=FlowMethod(method="pixels")
    )
    assert results["epe"] < 0.6 * math.hypot(*made.SHIFT)


def test_networks_are_read_and_named_by_their_hash(sintel, tmp_path: Path):
    save(random_network(), tmp_path / "net.safetensors")
    for method in ("features", "dynamics"):
        results = evaluate(
            dataset="sintel",
            data=sintel,
            split="subval-final",
            how=FlowMethod(
                method=method, network=str(tmp_path / "net.safetensors"), level=2, radius=1
            ),
        )
        assert (results["method"], results["level"], results["radius"]) == (method, 2, 1)
        assert 0 < results["epe"] < 30
    torch.manual_seed(0)
    save_flow_network(
        FlowNetwork(replace(CONFIG, crop=(16, 32))), tmp_path / "run/best.safetensors"
    )
    results = evaluate(
        dataset="sintel",
        data=sintel,
        split="subval-final",
        how=FlowMethod(network=str(tmp_path / "run"), overlap=0.5),
        folder=tmp_path / "out",
        num_pictures=0,
    )
    assert results["epe"] == pytest.approx(math.hypot(*made.SHIFT), abs=1)  # an untrained head
    assert len(json.loads((tmp_path / "out/results.json").read_text())["weights_sha256"]) == 64


def test_the_version_is_that_of_the_settings_and_not_of_the_machine(sintel, tmp_path: Path):
    save(random_network(), tmp_path / "net.safetensors")

    def version(split="subval-clean", **how):
        run = "" if how.get("method") == "zero" else str(tmp_path / "net.safetensors")
        made_by = FlowMethod(**{"method": "features", "level": 2, "radius": 1, **how}, network=run)
        return evaluate(dataset="sintel", data=sintel, split=split, how=made_by)["protocol"][
            "version"
        ]

    first = version()
    assert len(first) == 12
    # What the method has no use for does not count.
    assert version(tiles_at_once=3, overlap=0.5) == first
    others = [version("subval-final"), version(level=1), version(radius=2), version(method="zero")]
    assert len({first, *others}) == 5


def test_the_command_offers_every_dataset():
    assert set(get_args(Dataset)) == set(FLOW_SETS)


def test_what_is_missing_or_damaged_is_told_in_a_line(sintel):
    with pytest.raises(MidwayError, match="method finetuned: no network; give --network"):
        evaluate(dataset="sintel", data=sintel)
    (flow,) = sintel.root.glob("training/flow/temple_3/frame_0002.flo")
    flow.write_bytes(flow.read_bytes()[:-8])
    with pytest.raises(MidwayError, match=r"temple_3/frame_0002.flo has \d+ bytes"):
        evaluate(dataset="sintel", data=sintel, split="subval", how=ZERO)
    made.save_flow(flow, made.constant_flow() + np.float32(np.inf))
    with pytest.raises(
        MidwayError, match=r"temple_3/frame_0002.flo: ground-truth flow: no pixel is known"
    ):
        evaluate(dataset="sintel", data=sintel, split="subval", how=ZERO)
