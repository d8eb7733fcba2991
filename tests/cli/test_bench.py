"""midway bench data, midway bench step: what it prints, and what it refuses in one line."""

import json
from functools import partial

import pytest
import torch

from midway.cli import bench, main
from midway.data.prepare.measure import Sampling
from tests.compilers import Counting, compiler
from tests.data.video.made_videos import even_times, waves, write_video


def test_every_layout_is_a_row_with_what_limits_it(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", even_times(30), picture=waves)
    root = f"file://{tmp_path}"
    words = [root, "--short-sides", "300", "720", "--batch-size", "1", "--json"]
    assert main(["bench", "data", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert (result["root"], result["device"], result["batch_size"]) == (root, "cpu", 1)
    # Nothing is larger than the 96 pixels of the source.
    assert [layout["short_side"] for layout in result["layouts"]] == [96, 96]
    for layout in result["layouts"]:
        assert f"{layout['layout']}: the slowest stage is {layout['limit']};" in "\n".join(printed)


def test_pairs_at_keyframes_are_compared_with_random_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "Sampling", partial(Sampling, timed_seconds=0.01))
    write_video(tmp_path / "a.mp4", even_times(30), picture=waves)
    words = ["--short-sides", "--starts", "keyframes", "--json"]
    assert main(["bench", "data", str(tmp_path), *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    rates = result["layouts"][0]["keyframes"]
    assert result["starts"] == "keyframes"
    assert f"{rates['both'] / rates['random']:.2f} times)" in printed[-2]


def test_a_step_is_reported_as_a_table_a_sentence_and_json(capsys):
    precisions = ["32-true", "bf16-mixed"]
    words = ["--model", "tiny", "--batch-size", "1", "--precision", *precisions, "--repeats", "1"]
    assert main(["bench", "step", *words, "--against", "plain", "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert (result["model"], result["device"], result["batch_size"]) == ("tiny", "cpu", 1)
    assert list(result["precisions"]) == precisions
    assert any("DINO loss" in line for line in printed)
    for own, row in result["against"]["ratios"].items():
        for other, ratio in row.items():
            sentence = f"in {other} takes {ratio:.2f} times as long as ours in {own} ("
            assert any(sentence in line for line in printed)
    assert result["against"]["agreements"]["32-true"]["gradient_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_and_recomputed_step_is_reported_as_such(capsys):
    words = ["--model", "tiny", "--batch-size", "1", "--precision", "32-true", "--repeats", "1"]
    backend = Counting()
    with compiler(backend):
        assert main(["bench", "step", *words, "--compile", "--recompute", "--json"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["compile"]
    assert result["recompute"]
    first = result["precisions"]["32-true"]["first_step_seconds"]
    assert "compiled, recomputed" in " ".join(printed.split())
    assert f"including compilation: {first:.0f} s" in printed
    assert backend.graphs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no benchmark; give one: midway bench data"),
        (["speed"], "no benchmark"),
        (["data", "nowhere"], "nowhere: does not exist"),
        (["data", "--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["data", ".", "--short-sides", "8"], "short_side = 8; give 16 or more"),
        (["step", "--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["step", "--precision"], "--precision: no value"),
        (["step", "--repeats", "0"], "--repeats 0: give 1 or more"),
        (["step", "--device", "cuda"], "--device cuda: no GPU that torch can use"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_video(tmp_path / "a.mp4", even_times(30), picture=waves)
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
