"""`midway train`: real frames and videos, and whatever else a folder may hold."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midway.cli import main
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos

TINY = ["--data.batch-size", "2", "--data.num-workers", "0", "--run.log-every", "1"]
WORLD = WorldConfig(height=64, width=64, num_frames=40)


def _train(root: Path, run: Path, *words: str) -> int:
    place = ["--data.root", str(root), "--run.folder", str(run)]
    return main(["train", "camvid.midway_tiny", *place, *TINY, *words])


def _fails(root: Path, run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that tells why a run cannot start, which ends with code 2."""
    assert _train(root, run, *words) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.mark.parametrize("kind", ["camvid/train", "video"])
def test_it_runs_on_real_frames_and_videos(
    kind: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(shared_data / kind, tmp_path / "run", "--run.steps", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["steps"] == 2
    assert Path(result["checkpoint"]).is_file()


def test_a_run_continues_with_resume_and_not_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    run = tmp_path / "run"
    assert _train(tmp_path / "videos", run, "--run.steps", "1") == 0
    capsys.readouterr()
    assert "--resume" in _fails(tmp_path / "videos", run, capsys)
    assert main(["train", "--resume", str(run), "--run.steps", "2"]) == 0
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    loss = json.loads(lines[-1])["loss"]
    line = f"step 2 of 2, loss {loss:.4g}; data {tmp_path / 'videos'}, 0 clips skipped"
    assert line in capsys.readouterr().out
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    assert main(["info", str(run)]) == 0
    assert line in capsys.readouterr().out
    for content in ("", "{}\n", '{"step": 1, "progress": 0.0, "loss": "high"}\n'):
        (run / "metrics.jsonl").write_text(content)
        assert main(["info", str(run)]) == 0
        assert "loss" not in capsys.readouterr().out


def test_only_what_may_change_does_on_a_resume_and_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    run = tmp_path / "run"
    assert _train(tmp_path / "videos", run, "--run.steps", "1") == 0
    for words in (["--optim.lr", "0.5"], ["--method.network.encoder.depth", "11"]):
        capsys.readouterr()
        assert main(["train", "--resume", str(run), *words]) == 2
        assert f"{words[0][2:]} is" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--run.steps", "2"]) == 0
    assert json.loads((run / "config.json").read_text())["run"]["steps"] == 2


@pytest.mark.slow
def test_a_signal_to_the_process_group_leaves_a_checkpoint_and_code_3(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    run = tmp_path / "run"
    words = ["--data.root", str(tmp_path / "videos"), "--run.folder", str(run), *TINY]
    words += ["--data.num-workers", "1", "--run.steps", "100000", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "midway.cli", "train", "camvid.midway_tiny", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        log = run / "metrics.jsonl"
        while process.poll() is None and not (log.is_file() and log.read_text().count("\n") > 1):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 3, err
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"]
    assert Path(result["checkpoint"]).name == f"step_{result['steps']:08d}.ckpt"


def test_a_folder_without_pairs_is_an_error_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, texts = tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "notes.txt").write_text("no video")
    for root, message in (
        (empty, "no files"),
        (texts, "no video and no image"),
        (tmp_path / "missing", "missing"),
    ):
        line = _fails(root, tmp_path / "run", capsys)
        assert str(root) in line
        assert message in line
    write_videos(tmp_path / "short", WorldConfig(num_frames=10), seeds=[0])
    assert "gap" in _fails(tmp_path / "short", tmp_path / "run", capsys)
    assert not (tmp_path / "run").exists()


def test_bad_videos_are_listed_and_stop_a_run_that_allows_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, run = tmp_path / "videos", tmp_path / "run"
    good = write_videos(videos, WORLD, seeds=[0, 1])
    (videos / "text.mp4").write_text("no video")
    whole = good[0].read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    line = _fails(videos, run, capsys)
    assert "2 of 4 clips" in line
    listed = [json.loads(text)["clip"] for text in (run / "skipped.jsonl").read_text().splitlines()]
    assert sorted(listed) == ["cut.mp4", "text.mp4"]
    # The same folder serves once they are allowed, and the list stays.
    assert _train(videos, run, "--data.max-bad-share", "0.5", "--run.steps", "1") == 0
    assert (run / "skipped.jsonl").read_text().count("\n") == 2


def test_labels_of_another_layout_are_an_error_before_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    words = ["--labels.dataset", "camvid", "--labels.root", str(tmp_path / "videos")]
    line = _fails(tmp_path / "videos", tmp_path / "run", capsys, *words)
    assert "not the layout of CamVid" in line
    assert "expected train/*.png with trainannot/*.png; found world_0000.mp4" in line
    assert not (tmp_path / "run").exists()


def test_a_run_folder_with_other_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("precious")
    assert "not empty" in _fails(tmp_path / "videos", run, capsys)
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]
    file = run / "thesis.tex"
    assert "thesis.tex: is a file; choose another" in _fails(tmp_path / "videos", file, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bdd100k.midway_vit"], "did you mean 'bdd100k.midway_vits'"),
        (["camvid.midway_tiny", "--optim.learning-rate", "1"], "--optim.learning-rate"),
        (["camvid.midway_tiny", "--data.rot", "x"], "did you mean --data.root?"),
        (["camvid.midway_tiny", "--run.lr", "1"], "Unrecognized options: --run.lr, 1 ("),
        (["camvid.midway_tiny", "--optim.lr", "fast"], "--optim.lr"),
        (["camvid.midway_tiny", "--method.network.encoder.heads", "5"], "not a multiple of heads"),
        (["camvid.midway_tiny", "--labels.root", "x"], "labels.dataset: not set"),
        (["camvid.midway_tiny", "--labels.images", "0"], "must be 1 or more"),
        (["--data.root", "x", "camvid.midway_tiny"], "give the experiment first"),
        (["--resume"], "give the folder"),
        (["--resume", "nowhere"], "nowhere: is not a run"),
    ],
)
def test_wrong_words_are_an_error_of_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_resumed_run_with_a_damaged_configuration_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path / "videos", WORLD, seeds=[0])
    run = tmp_path / "run"
    assert _train(tmp_path / "videos", run, "--run.steps", "1") == 0
    capsys.readouterr()
    config = json.loads((run / "config.json").read_text())
    config["optim"]["lrr"] = 1
    (run / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(run)]) == 2
    assert "no field 'lrr'; did you mean 'lr'" in capsys.readouterr().err
    shutil.rmtree(run)
