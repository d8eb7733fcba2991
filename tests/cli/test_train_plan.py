"""`midway train X --plan` prints what a run takes, writes nothing, and follows the options."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from midway.bench import trial
from midway.cli import main
from midway.data.prepare.measure import Sampling
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "Sampling", partial(Sampling, timed_seconds=0.01))
    monkeypatch.setattr(trial, "LONG_SECONDS", 0.0)
    folder = tmp_path / "my videos"
    write_videos(folder, WorldConfig(height=64, width=96, num_frames=40), seeds=[0, 1])
    return folder


def test_the_plan_of_a_run_on_gpus(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (videos / "empty.mp4").write_bytes(b"")
    words = ["train", "camvid.mae_tiny", "--data.root", str(videos), "--data.num-workers", "0"]
    words += ["--data.max-bad-share", "0.5", "--run.accelerator", "auto"]
    words += ["--run.precision", "16-mixed", "--plan", "--json"]
    assert main(words) == 0
    out = capsys.readouterr().out
    *lines, last = out.splitlines()
    plan = json.loads(last)
    assert plan["length"]["clips"] == 2
    assert plan["config"]["run"]["steps"] == plan["length"]["steps"] == 300
    assert {chip["name"] for chip in plan["chips"]} >= {"T4", "A100", "H200"}
    for line in (
        "2 clips, 3 s; 1 skipped",
        "skipped: ",
        "empty.mp4",
        "A100",
        "not measured",
        "bf16",
    ):
        assert line in out
    assert f"midway prepare '{videos}' --measure --target {plan['target']}" in out
    assert lines[-1] == (
        f"start: midway train camvid.mae_tiny --data.root '{videos}' --data.num-workers 0 "
        "--data.max-bad-share 0.5 --run.accelerator auto --run.precision 16-mixed"
    )
    assert {path.name for path in Path().iterdir()} == {"my videos"}


def test_a_plan_says_that_memory_is_too_small(
    videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midway.cli.train_plan._physical_memory", lambda: 1_000_000)
    words = ["train", "camvid.mae_tiny", "--data.root", str(videos), "--data.num-workers", "0"]
    assert main([*words, "--run.accelerator", "cpu", "--plan"]) == 0
    assert "note: this machine has 0 GB of memory; give a smaller" in capsys.readouterr().out


def test_a_preset_for_own_video_follows_the_data_and_the_options(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "own.midway_tiny", "--data.root", str(videos), "--data.batch_size=16"]
    assert main([*words, "--plan", "--json"]) == 0
    config = json.loads(capsys.readouterr().out.splitlines()[-1])["config"]
    assert (config["data"]["batch_size"], config["run"]["steps"]) == (16, 200)
    run = [*words, "--run.steps", "1", "--data.num-workers", "0"]
    assert main(run) == 0
    first, *_, after = capsys.readouterr().out.splitlines()
    assert first == "2 clips, 3 s: 1 step of 16 samples, every frame a start"
    assert after.startswith("next: midway eval NAME --network runs/own.midway_tiny")
    saved = json.loads(Path("runs/own.midway_tiny/config.json").read_text())
    assert (saved["run"]["steps"], saved["optim"]["warmup_steps"]) == (1, 1)


def test_images_are_announced_with_the_rate_they_are_counted_at(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(20):
        image = Image.new("RGB", (96, 64), (12 * number, 80, 200))
        image.save(tmp_path / "frames" / f"{number:03d}.png")
    words = ["train", "own.midway_tiny", "--data.root", str(tmp_path / "frames")]
    words += ["--data.fps", "10", "--data.num-workers", "0", "--run.steps", "1"]
    assert main(words) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("1 clip, 2 s (10 images a second, --data.fps): 1 step of 8 samples")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan"], "no experiment"),
        (["own", "--plan"], "did you mean 'own.midway_tiny' or 'own.midway_vits'?"),
        (["--resume", "runs/x", "--plan"], "cannot describe a resumed run"),
        (["own.midway_tiny", "--data.root", "{videos}", "--run.steps", "0"], "run.steps = 0; give"),
        (["own.midway_tiny", "--plan"], "give the folder of your data by --data.root"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_line(
    words: list[str],
    message: str,
    videos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", *(word.format(videos=videos) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
