import pytest
import torch
from torch import nn

from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.safe_pickle import read_checkpoint
from midway.models.weights.sources import load_encoder
from midway.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from midway.train.moments import checked_moments
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


def spoiled(folder, spoil):
    """Checkpoint of a run after its second step, changed by `spoil`."""
    toy = Toy()
    own = parts(toy)
    for _ in range(2):
        for parameter in toy.student.parameters():
            parameter.grad = torch.ones_like(parameter)
        own["optimizer"].step_unless(torch.zeros(()))
    path = save_checkpoint(folder, step=2, keep=1, **own)
    content = torch.load(path, weights_only=True)
    spoil(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s.update(exp_avg=torch.zeros(1)),
            r"exp_avg of student\.first\.weight has shape",
        ),
        (lambda s: s.update(exp_avg=torch.zeros(3, 5)), r"exp_avg of .* has shape \(3, 5\)"),
        (lambda s: s.update(exp_avg=s["exp_avg"].double()), "exp_avg of .* type torch.float64"),
        (lambda s: s.update(exp_avg=s["exp_avg"] * torch.nan), "exp_avg of .* is not finite"),
        (lambda s: s.update(exp_avg_sq=s["exp_avg_sq"] - 1), "exp_avg_sq of .* negative"),
        (lambda s: s.update(exp_avg=s["exp_avg"].to("meta")), "exp_avg of .* not a tensor with"),
        (lambda s: s.update(exp_avg=s["exp_avg"].to_sparse()), "exp_avg of .* not a tensor with"),
        (lambda s: s.update(exp_avg=[1.0]), "exp_avg of .* not a tensor with"),
        (lambda s: s.update(step=torch.tensor(-1.0)), r"step of .* is -1\.0"),
        (lambda s: s.update(step=torch.tensor(0.5)), r"step of .* is 0\.5"),
        (lambda s: s.update(step=torch.tensor(1e30)), r"step of .* is 1"),
        (lambda s: s.update(step=torch.zeros(2)), "step of .* has shape"),
        (lambda s: s.pop("exp_avg_sq"), r"state of student\.first\.weight is not step"),
        (lambda s: s.update(other=torch.zeros(1)), r"state of student\.first\.weight is not step"),
    ],
)
def test_moments_of_other_shapes_types_or_ranges_never_reach_the_optimiser(
    tmp_path, spoil, message
):
    path = spoiled(tmp_path, lambda content: spoil(content["optimizer"]["state"][0]))
    with pytest.raises(MidwayError, match=rf"step_00000002\.ckpt: .*{message}.*; delete it"):
        load_checkpoint(path, **parts(Toy()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda o: o.clear(),
        lambda o: o.update(state=[]),
        lambda o: o.update(state={7: o["state"][0]}),
        lambda o: o.update(state={"0": o["state"][0]}),
        lambda o: o.update(param_groups=[]),
        lambda o: o.update(param_groups=None),
        lambda o: o["param_groups"][0].update(params=[3, 3]),
    ],
)
def test_an_optimiser_of_another_make_is_refused_in_one_line(tmp_path, spoil):
    path = spoiled(tmp_path, lambda content: spoil(content["optimizer"]))
    with pytest.raises(MidwayError, match="its optimiser does not fit this run") as caught:
        load_checkpoint(path, **parts(Toy()))
    assert "\n" not in str(caught.value)


def test_a_moment_that_repeats_one_element_is_copied_to_its_own_memory(tmp_path):
    def repeat(content):
        state = content["optimizer"]["state"][0]
        state["exp_avg"] = torch.zeros(1, 1).expand(state["exp_avg"].shape)

    path = spoiled(tmp_path, repeat)
    # Refused as larger than its storage, or copied; never handed on as it is.
    with pytest.raises(MidwayError, match=r"step_00000002\.ckpt"):
        load_checkpoint(path, **parts(Toy()))
    parameter = nn.Parameter(torch.zeros(3, 4))
    one = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(1, 1).expand(3, 4)}
    state = {0: {**one, "exp_avg_sq": one["exp_avg"]}}
    found = checked_moments({"state": state}, [("weight", parameter)])[0]
    assert found["exp_avg"].stride() == found["exp_avg_sq"].stride() == (4, 1)
    assert found["exp_avg"].data_ptr() != found["exp_avg_sq"].data_ptr()


@pytest.mark.parametrize(
    "change",
    [
        {"step": -5},
        {"step": 10**30},
        {"step": 3},
        {"step": True},
        {"skipped_steps": -1},
        {"skipped_steps": 2**70},
        {"scaler": {"scale": "x"}},
        {"scaler": {"scale": torch.inf, "_growth_tracker": 0}},
    ],
)
def test_numbers_out_of_range_or_against_the_name_are_refused(tmp_path, change):
    path = spoiled(tmp_path, lambda content: content.update(change))
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    with pytest.raises(MidwayError, match=r"step_00000002\.ckpt.*; delete it") as caught:
        load_checkpoint(path, **{**parts(Toy()), "scaler": scaler})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((16, 8), torch.nan), r"student\.first\.weight has values that are not finite"),
        (torch.zeros(16, 8).half(), "another model: .*float16"),
        (torch.zeros(16, 8).to(torch.complex64), "another model: .*of another type"),
        (torch.zeros(16, 8, device="meta"), "another model: .*of another type"),
        (torch.zeros(16), "another model: .*of another shape"),
        (5, "another model: .*of another type"),
    ],
)
def test_weights_that_are_not_those_of_a_sound_run_are_refused(tmp_path, tensor, message):
    path = spoiled(
        tmp_path, lambda content: content["model"].update({"student.first.weight": tensor})
    )
    with pytest.raises(MidwayError, match=message):
        load_checkpoint(path, **parts(Toy()))


def test_only_numbered_files_count_and_by_their_numbers(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("step_99999999", "step_100000000", "step_zzz", "step_"):
        (folder / f"{name}.ckpt").touch()
    assert latest_checkpoint(tmp_path) == folder / "step_100000000.ckpt"
