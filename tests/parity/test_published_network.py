"""The network has the published one's numbers, before and after six steps of training.

Every folder named in the environment variable MIDWAY_PARITY (separated by ":") is checked; it
holds a `checkpoint.pth` in the release's layout, `golden.json` and `golden.safetensors`.
"""

import json
import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from midway.data.views.render import Clips
from midway.methods.midway import Midway, MidwayConfig
from midway.models.midway import MidwayNetwork, MidwayOutput
from midway.models.weights.load import load
from midway.models.weights.release import to_release_name
from midway.train.objective import Progress
from midway.train.optim import AdamW, OptimConfig, Rates, clip_gradients

DEFAULT = Path(__file__).parents[3] / "shared" / "parity" / "tiny"
FOLDERS = os.environ.get("MIDWAY_PARITY", str(DEFAULT)).split(":")


class Golden:
    """A parity folder: its network, as loaded, and the numbers to agree with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = load_file(folder / "golden.safetensors")
        golden = json.loads((folder / "golden.json").read_text())
        self.config: dict = golden["config"]
        self.trajectory: list[dict] = golden["trajectory"]

    def load(self) -> MidwayNetwork:
        return load(
            self.folder / "checkpoint.pth",
            encoder_heads=self.config["heads"],
            midway_heads=self.config["mheads"],
            backward_heads=self.config["fheads"],
            forward_heads=self.config["pheads"],
            image_size=tuple(self.config["img"]),
        )

    @cached_property
    def network(self) -> MidwayNetwork:
        return self.load()

    @cached_property
    def frames(self) -> tuple[Tensor, Tensor]:
        return self.numbers["inputs.frame_x"], self.numbers["inputs.frame_y"]

    @cached_property
    def output(self) -> MidwayOutput:
        with torch.no_grad():
            return self.network.forward_both_orders(*self.frames)

    def crops(self, step: int) -> list[Tensor]:
        prefix = f"trajectory.{step}.crop"
        return [self.numbers[name] for name in sorted(self.numbers) if name.startswith(prefix)]

    def clips(self, step: int) -> Clips:
        crops = self.crops(step)
        places = {"motion": slice(2), "globals": slice(2, 6), "locals": slice(6, None)}
        views = {
            name: torch.stack(crops[place]).unflatten(0, (2, -1)) for name, place in places.items()
        }
        return Clips(views=views, seconds=torch.zeros(2, len(crops[0])), signals={})


@pytest.fixture(scope="module", params=FOLDERS)
def golden(request: pytest.FixtureRequest) -> Golden:
    folder = Path(request.param)
    if not folder.is_dir():
        if os.environ.get("CI") or "MIDWAY_PARITY" in os.environ:
            pytest.fail(f"no parity folder {folder}")
        pytest.skip("golden numbers not at hand: no parity folder beside the checkout")
    return Golden(folder)


def _assert_agree(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("side", ["student", "teacher"])
@torch.no_grad()
def test_features_of_every_level_agree(golden: Golden, side: str) -> None:
    network = golden.network
    encoder = network.encoder if side == "student" else network.teacher.encoder
    levels = encoder.levels(torch.cat(golden.frames), network.config.levels)
    for index, features in enumerate(levels):
        _assert_agree(features, golden.numbers[f"{side}_features.{index}"])


@pytest.mark.parametrize(
    "name", ["motion_latents", "source_backward", "target_backward", "prediction"]
)
def test_what_the_dynamics_find_agrees(golden: Golden, name: str) -> None:
    for index, level in enumerate(golden.network.config.dynamics.levels):
        found = getattr(golden.output.levels[level], name)
        _assert_agree(found, golden.numbers[f"level{index}.{name}"])


def test_dense_losses_agree(golden: Golden) -> None:
    levels = golden.network.config.dynamics.levels
    losses = torch.stack([golden.output.levels[level].loss for level in levels])
    _assert_agree(losses, golden.numbers["dense_losses"])
    _assert_agree(losses.sum(), golden.numbers["dense_loss_sum"])


def test_one_order_alone_gives_the_same_as_both_stacked(golden: Golden) -> None:
    source, target = golden.frames
    with torch.no_grad():
        out = golden.network(source, target)
    for index, level in enumerate(golden.network.config.dynamics.levels):
        wanted = golden.numbers[f"level{index}.prediction"]
        _assert_agree(out.levels[level].prediction, wanted[: len(source)])


@torch.no_grad()
def test_dino_logits_of_the_teacher_agree(golden: Golden) -> None:
    teacher = golden.network.teacher
    logits = teacher.head(teacher.encoder(torch.cat(golden.crops(0)[2:6])))
    _assert_agree(logits, golden.numbers["teacher_dino_logits"])


@torch.no_grad()
def test_class_tokens_of_small_crops_agree_through_resampled_positions(golden: Golden) -> None:
    local = torch.cat(golden.crops(0)[6:])
    wanted = golden.numbers["student_cls_local"]
    _assert_agree(golden.network.encoder(local[: len(wanted)]), wanted)


def test_six_training_steps_agree_on_losses_weights_teacher_and_centre(golden: Golden) -> None:
    network = golden.load()
    encoder = replace(network.config.encoder, drop_path=0.0)
    method = Midway(MidwayConfig(network=replace(network.config, encoder=encoder)))
    method.network.load_state_dict(network.state_dict())
    method.train()
    config = OptimConfig(clip="per_tensor")
    groups = method.parameter_groups()
    optimizer = AdamW(method, groups, config)
    for wanted in golden.trajectory:
        steps_per_epoch = len(golden.trajectory) // 2
        progress = Progress(
            step=wanted["step"],
            steps=len(golden.trajectory),
            steps_per_epoch=steps_per_epoch,
            samples=golden.config["batch"],
        )
        assert int(progress.epoch) == wanted["epoch"]
        optimizer.set_rates(Rates(lr=wanted["lr"], weight_decay=wanted["weight_decay"]))
        out = method.loss(golden.clips(wanted["step"]))
        losses = [out.logs[f"dense_loss_{level}"] for level in network.config.dynamics.levels]
        for found, value in (
            (out.loss.detach(), wanted["loss"]),
            (out.logs["dino_loss"], wanted["dino_loss"]),
            (out.logs["dense_loss"], wanted["dense_loss"]),
            (torch.stack(losses), wanted["dense_losses"]),
        ):
            torch.testing.assert_close(found, torch.tensor(value), rtol=1e-4, atol=0)
        optimizer.zero_grad(set_to_none=True)
        out.loss.backward()
        method.after_backward(progress)
        clip_gradients(groups, config)
        optimizer.step_unless(torch.zeros(()))
        method.network.dino_loss.move_center()
        method.network.update_teacher(wanted["momentum"])
    _compare_after(golden, method.network)


def _compare_after(golden: Golden, network: MidwayNetwork) -> None:
    levels = network.config.dynamics.levels
    found = {
        to_release_name(name, levels).replace("student.module.", "student."): tensor
        for name, tensor in network.state_dict().items()
    }
    after = {k.removeprefix("after."): v for k, v in golden.numbers.items() if "after." in k}
    assert after
    for name, wanted in after.items():
        name = name.replace("dynamics.", "motion_loss.module.")
        name = "dino_loss.center" if name == "center" else name
        _assert_agree(found[name], wanted)
