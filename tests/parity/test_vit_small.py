"""The full-size network: a file in the release's layout, its counts and its numbers."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from midway.cli import main
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.models.weights.release import unflatten_release


def _drawn(name: str, shape: list[int]) -> Tensor:
    """Weight that the parity sheet prescribes for a name."""
    w = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("weight_g") or ("norm" in name and name.endswith(".weight")):
        w = 1 + 0.1 * w
    elif len(shape) < 2:
        w = 0.1 * w
    elif "token" in name or "pos_embed" in name:
        w = 0.2 * w
    else:
        w = w / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(w)


@pytest.fixture(scope="module")
def release_file(shared_parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = json.loads((shared_parity / "vit_small" / "keys.json").read_text())
    tensors = {name: _drawn(name, shape) for name, shape in names.items()}
    path = tmp_path_factory.mktemp("release") / "vit_small.pth"
    torch.save(unflatten_release(tensors), path)
    return path


@pytest.fixture(scope="module")
def golden(shared_parity: Path) -> dict[str, Tensor]:
    return load_file(shared_parity / "vit_small" / "golden.safetensors")


@pytest.fixture(scope="module")
def network(release_file: Path) -> MidwayNetwork:
    return load(release_file, encoder_heads=6)


@pytest.fixture(scope="module")
def frames() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((2, 3, 224, 224)).astype(np.float32) for _ in range(2))
    return torch.from_numpy(x), torch.from_numpy(y)


def _assert_agree(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_info_prints_the_published_parameter_counts(
    release_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(release_file), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"]
    assert round(counts["encoder"] / 1e6, 1) == 21.7
    assert round(counts["dynamics"] / 1e6, 1) == 36.6


@torch.no_grad()
def test_outputs_agree_with_the_golden_numbers(
    network: MidwayNetwork, golden: dict[str, Tensor], frames: tuple[Tensor, Tensor]
) -> None:
    levels = network.forward_both_orders(*frames).levels
    for index, level in enumerate((3, 6, 9)):
        out, name = levels[level], f"level{index}"
        _assert_agree(out.loss, golden["dense_losses"][index])
        _assert_agree(out.motion_latents, golden[f"{name}.motion_latents"])
        _assert_agree(out.source_backward[:, :8], golden[f"{name}.source_backward.tokens0_8"])
        _assert_agree(out.prediction[:, :8], golden[f"{name}.prediction.tokens0_8"])
    x = frames[0]
    _assert_agree(network.encoder(x[..., :96, :96]), golden["student_cls_96"])
    logits = network.teacher.head(network.teacher.encoder(x))
    _assert_agree(logits[:, :256], golden["teacher_logits_0_256"])
