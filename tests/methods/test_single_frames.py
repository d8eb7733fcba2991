"""Methods on single frames need no second one, and their encoders leave as plain ViTs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import midway
from midway.cli import main
from midway.models.encoders.vit import VisionTransformer
from midway.train.checkpoint import latest_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(("method", "prefix"), [("mae", "encoder."), ("ibot", "network.encoder.")])
def test_frames_apart_from_each_other_are_enough(
    method: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in (0, 1000):  # at 30 frames per second, further apart than any gap
        Path("images").mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(f"images/drive_{number:06d}.png")
    words = ["--data.root", "images", "--data.batch-size", "2", "--data.num-workers", "0"]
    words += ["--run.folder", "run", "--run.steps", "2", "--run.log-every", "1"]
    words += ["--run.health-every", "2", "--optim.warmup-steps", "1"]
    assert main(["train", f"camvid.{method}_tiny", *words]) == 0
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    assert len({json.loads(line)["loss"] for line in lines}) == 2
    assert main(["export", "run", "encoder.safetensors", "--weights", "student"]) == 0
    exported = midway.load_encoder("encoder.safetensors")
    assert isinstance(exported, VisionTransformer)
    checkpoint = latest_checkpoint(Path("run"))
    assert checkpoint
    trained = torch.load(checkpoint, weights_only=True)["model"]
    for name, tensor in exported.state_dict().items():
        assert torch.equal(tensor, trained[prefix + name])
