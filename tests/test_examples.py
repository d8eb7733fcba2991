"""Each example runs as it is, with the small inputs that it makes itself."""

import json
import runpy
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = {
    "features": [],
    "train_on_video": ["--steps", "2", "--batch-size", "2", "--run", "run"],
    "heatmap": [],
    "track": ["--fps", "1"],
    "compare_encoders": ["--train", "4", "--test", "2"],
}
"""Arguments of each script, which make it short."""
PICTURES = {"features": "features.png", "heatmap": "heatmap.png", "track": "tracks.png"}


def run(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_every_script_is_run_below():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*WORDS}


@pytest.mark.parametrize("name", WORDS)
def test_a_script_runs_without_inputs(name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(name, WORDS[name], monkeypatch)
    printed = capsys.readouterr().out.splitlines()
    if name in PICTURES:
        with Image.open(tmp_path / PICTURES[name]) as picture:
            assert min(picture.size) >= 90
        assert printed[-1].startswith(f"{PICTURES[name]}: ")
    elif name == "compare_encoders":
        scores = [list(map(float, line.split()[1:])) for line in printed[1:]]
        assert len(scores) == 2
        assert all(0 < score < 100 for row in scores for score in row)
    else:
        assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2
        assert "width 96" in printed[-1]


def test_scripts_take_files(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (80, 64), colour).save(name)
    run("features", ["a.png", "-o", "x.png"], monkeypatch)
    run("heatmap", ["a.png", "b.png", "--point", "70", "9", "-o", "y.png"], monkeypatch)
    with Image.open("x.png") as picture:
        assert picture.size == (160, 64)
    assert capsys.readouterr().out.count("\n") == 2


def test_the_notebook_runs_and_shows_four_pictures(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": "."}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [each for each in outputs if "image/png" in each.get("data", {})]
    assert len(shown) == 4
    assert not [each for each in outputs if each.get("name") == "stderr"]


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
