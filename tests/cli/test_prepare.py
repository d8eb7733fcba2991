"""midway prepare: what it prints, exit codes, and an interruption from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import lance
import pytest

from midway.cli import main, prepare
from midway.data.prepare.measure import Sampling
from tests.data.video.made_videos import even_times, noise, write_video

SMALL = ["--short-side", "32", "--fps", "5", "--jobs", "1"]


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def warnings_in(errors: str) -> list[str]:
    """Lines on standard error, without those of progress, which slow work prints."""
    return [line for line in errors.splitlines() if not line.startswith("clips ")]


def test_a_store_is_made_and_summarised(tmp_path, capsys):
    videos, destination = tmp_path / "videos", tmp_path / "s.lance"
    videos.mkdir()
    write_video(videos / "a.mp4", even_times(11))
    (videos / "bad.mp4").write_text("no video")
    assert main(["prepare", str(videos), str(destination), *SMALL, "--json"]) == 0
    captured = capsys.readouterr()
    assert "bad.mp4: cannot be read as video" in captured.out
    assert json.loads(captured.out.splitlines()[-1]) == {
        "destination": str(destination),
        "clips": 1,
        "frames": 6,
        "bytes": sum(file.stat().st_size for file in (destination / "data").iterdir()),
        "new_clips": 1,
        "skipped": 1,
        "skipped_list": f"{destination}.skipped.jsonl",
        "interrupted": False,
    }
    assert warnings_in(captured.err) == []


@pytest.mark.slow
def test_a_signal_to_the_process_group_ends_with_code_3_and_the_next_run_continues(
    tmp_path, capsys
):
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(8):
        write_video(videos / f"{number}.mp4", even_times(120), picture=noise)
    whole, stopped = tmp_path / "whole.lance", tmp_path / "stopped.lance"

    def words(destination: Path) -> list[str]:
        return [str(videos), str(destination), *SMALL, "--json"]

    process = subprocess.Popen(
        [sys.executable, "-m", "midway.cli", "prepare", *words(stopped)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and not list(stopped.glob("data/*.lance")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert err == ""
    assert "interrupted; run the same command again to continue" in out
    summary = json.loads(out.splitlines()[-1])
    assert summary["interrupted"]
    assert summary["clips"] < 8
    for destination in (whole, stopped):
        assert main(["prepare", *words(destination)]) == 0
        assert result(capsys)["clips"] == 8
    assert lance.dataset(str(stopped)).to_table().equals(lance.dataset(str(whole)).to_table())


@pytest.mark.parametrize("chosen", [0, 1])
def test_measure_prints_the_command_that_makes_a_recommended_store(
    tmp_path, capsys, monkeypatch, chosen
):
    folder = tmp_path / "my videos"
    folder.mkdir()
    write_video(folder / "a.mp4", even_times(30))
    monkeypatch.setattr(prepare, "Sampling", partial(Sampling, timed_seconds=0.01))
    monkeypatch.setattr(prepare, "recommend", lambda layouts, **_: (layouts[chosen], "so"))
    assert main(["prepare", str(folder), "--measure", "--fps", "5"]) == 0
    command = f"make it: midway prepare '{folder}' 'my videos.lance' --short-side 48 --fps 5"
    assert (command in capsys.readouterr().out.splitlines()) == bool(chosen)


def test_measure_prints_a_table_and_a_choice(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", even_times(30))
    assert main(["prepare", str(tmp_path), "--measure", "--json"]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out.splitlines()[-1])
    assert f"recommended: {summary['choice']} ({summary['why']})" in captured.out
    assert [layout["short_side"] for layout in summary["layouts"]] == [48, 48]
    for layout in summary["layouts"]:
        assert layout["name"] in captured.out
        assert layout["cores"]["1000"] >= layout["cores"]["100"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_measure_recommends_for_the_throughput_that_is_needed(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", even_times(30))
    words = ["prepare", str(tmp_path), "--measure", "--json"]
    for target in ("0.5", "1e9"):
        assert main([*words, "--target", target]) == 0
        captured = capsys.readouterr().out
        summary = json.loads(captured.splitlines()[-1])
        assert summary["target"] == float(target)
        assert f"{float(target):g} pairs/s" in summary["why"]
        assert f"{float(target):g}" in summary["layouts"][0]["cores"]
        assert "1 clip, " in captured
    assert "it is the fastest" in summary["why"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no destination; give a name that ends in .lance"),
        (["x.lance", "--measure"], "leave x.lance out"),
        (["x.lance", "--jobs", "0"], "--jobs 0: give 1 or more"),
        (["x.lance", "--fps", "0"], "fps = 0.0; give a rate above 0"),
        (["x.mp4"], "ends in .lance"),
        (["--measure", "--index-only"], "give one of them"),
        (["x.lance", "--target", "300"], "only with --measure"),
        (["--measure", "--target", "0"], "--target 0: give a rate above 0"),
        (["x.lance", "--short-sid", "3"], "did you mean --short-side?"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"), even_times(5))
    assert main(["prepare", "a.mp4", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("midway: ")
    assert message in error
    assert error.count("\n") == 1


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path, capsys, monkeypatch):
    ray = pytest.importorskip("ray")

    def find_none(*arguments: object, **options: object) -> None:
        raise ConnectionError

    # One may run on this machine, for another test.
    monkeypatch.setattr(ray, "init", find_none)
    write_video(tmp_path / "a.mp4", even_times(5))
    assert main(["prepare", str(tmp_path), str(tmp_path / "x.lance"), "--ray"]) == 2
    assert "no Ray cluster is running; start one with `ray start --head`" in capsys.readouterr().err


def test_an_index_is_made_where_it_is_asked_for(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/a.mp4", even_times(16))
    words = ["prepare", str(tmp_path / "videos"), "--index-only", "--jobs", "1", "--json"]
    for place in ([], [str(tmp_path / "elsewhere.jsonl")]):
        assert main([*words[:2], *place, *words[2:]]) == 0
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (summary["videos"], summary["unusable"], summary["reused"]) == (1, 0, 0)
        assert Path(summary["file"]).is_file()
    assert main([*words[:2], "index.txt", *words[2:]]) == 2
    assert "an index ends in .jsonl" in capsys.readouterr().err


def test_a_source_of_which_nothing_can_be_read_ends_in_an_error(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (videos / name).write_text("no video")
    assert main(["prepare", str(videos), str(tmp_path / "s.lance"), *SMALL]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        f"{videos}: all of its 2 clips are unreadable; the first: {videos}/a.mp4: cannot" in error
    )


def test_names_that_are_no_utf8_or_hold_markup_are_printed_escaped_and_the_rest_is_done(
    tmp_path, capsys
):
    videos = tmp_path / "videos[/b]"
    videos.mkdir(parents=True)
    path = write_video(videos / "a.mp4", even_times(11))
    try:
        (Path(os.fsdecode(os.fsencode(videos) + b"/caf\xe9.mp4"))).write_bytes(path.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    (tmp_path / "a[").mkdir()
    destination = tmp_path / "a[" / "b].lance"
    assert main(["prepare", str(videos), str(destination), *SMALL]) == 0
    printed = capsys.readouterr()
    assert r"caf\xe9.mp4: has a name that is not valid UTF-8; rename it" in printed.out
    assert "b].lance" in printed.out
    assert warnings_in(printed.err) == []


def test_a_folder_of_bad_clips_and_the_empty_store_it_gives_are_one_line_each(tmp_path, capsys):
    videos, destination = tmp_path / "videos", tmp_path / "s.lance"
    videos.mkdir()
    (videos / "bad.mp4").write_text("no video")
    assert main(["prepare", str(videos), str(destination), *SMALL]) == 2
    assert "its only clip is unreadable" in capsys.readouterr().err
    words = ["synthetic.midway_tiny", "--data.root", str(destination)]
    assert main(["train", *words, "--run.folder", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert "s.lance: contains no clip; prepare it again" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()
