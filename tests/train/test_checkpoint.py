import pytest
import torch
from torch import nn

from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.safe_pickle import read_checkpoint
from midway.models.weights.sources import load_encoder
from midway.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from midway.train.optim import AdamW, OptimConfig
from tests.models.networks import ENCODER

from .toy import Toy


def parts(toy: Toy):
    optimizer = AdamW(toy, toy.parameter_groups(), OptimConfig())
    return {
        "objective": toy,
        "optimizer": optimizer,
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
    }


def test_a_crash_while_writing_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def crash(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, crash)
    assert path.read_bytes() == b"before"


def test_a_crash_in_the_middle_of_a_checkpoint_leaves_the_previous_one(tmp_path, monkeypatch):
    toy = Toy()
    first = save_checkpoint(tmp_path, step=5, keep=1, **parts(toy))
    save = torch.save

    def crash(content, file):
        save(content, file)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", crash)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(tmp_path, step=10, keep=1, **parts(toy))
    assert latest_checkpoint(tmp_path) == first
    assert load_checkpoint(first, **parts(Toy())) == 5
    save_checkpoint(tmp_path, step=15, keep=1, **parts(toy))
    assert [p.name for p in first.parent.iterdir()] == ["step_00000015.ckpt"]


def test_only_the_newest_checkpoints_stay(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for step in (900, 1000, 100_000):
        save_checkpoint(tmp_path, step=step, keep=2, **parts(Toy()))
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert sorted(p.name for p in newest.parent.iterdir()) == [
        "step_00001000.ckpt",
        "step_00100000.ckpt",
    ]
    assert newest.name == "step_00100000.ckpt"


def test_a_damaged_checkpoint_or_one_of_another_model_is_named(tmp_path):
    path = save_checkpoint(tmp_path, step=1, keep=1, **parts(Toy()))
    other = Toy()
    other.student.extra = nn.Linear(1, 1)
    with pytest.raises(MidwayError, match=r"another model: .*step_00000001\.ckpt"):
        load_checkpoint(path, **parts(other))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MidwayError, match=r"cannot be read: .*step_00000001\.ckpt.*; delete it"):
        load_checkpoint(path, **parts(Toy()))


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", [1, 2], {"step": 1}, None, {"step": "1", "model": []}],
    ids=["empty", "text", "list", "keys missing", "folder", "other kinds"],
)
def test_what_is_no_checkpoint_of_a_run_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "step_00000001.ckpt"
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(MidwayError, match=r"step_00000001\.ckpt.*delete it") as caught:
        load_checkpoint(path, **parts(Toy()))
    assert "\n" not in str(caught.value)


def test_settings_of_the_optimiser_come_from_the_configuration_not_the_checkpoint(tmp_path):
    toy = Toy()
    groups = toy.parameter_groups()
    path = save_checkpoint(tmp_path, step=1, keep=1, **parts(toy))
    config = OptimConfig(lr=0.3, betas=(0.5, 0.6))
    resumed = {**parts(toy), "optimizer": AdamW(toy, groups, config)}
    load_checkpoint(path, **resumed)
    for group in resumed["optimizer"].param_groups:
        assert (group["lr"], group["betas"]) == (0.3, (0.5, 0.6))


def test_a_checkpoint_describes_the_encoders_of_its_objective(tmp_path):
    class Pretraining(Toy):
        def __init__(self):
            super().__init__()
            self.net = VisionTransformer(ENCODER)
            self.ema = VisionTransformer(ENCODER)

        @property
        def encoders(self):
            return {"student": self.net, "teacher": self.ema}

    toy = Pretraining()
    save_checkpoint(tmp_path, step=5, keep=1, **parts(toy))
    teacher = load_encoder(str(tmp_path)).state_dict()
    assert all(torch.equal(teacher[n], t) for n, t in toy.ema.state_dict().items())
    content = read_checkpoint(latest_checkpoint(tmp_path))
    assert content["encoders"]["student"]["kind"] == "vit"
    assert content["encoders"]["student"]["prefix"] == "net."
