import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.train.atomic import write_atomically
from midway.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from midway.train.optim import AdamW, OptimConfig

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
    with pytest.raises(MidwayError, match=r"cannot be read: .*step_00000001\.ckpt; delete it"):
        load_checkpoint(path, **parts(Toy()))
