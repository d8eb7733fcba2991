"""Results of several runs in one table: seeds together, versions apart, nothing averaged away."""

import json
from pathlib import Path

import pytest

from midway.cli import main
from midway.errors import MidwayError
from midway.paper.gather import find_results, summary, tables_of

VERSION = "5aa8bf10a7e6"


def write_run(folder: Path, *, seed: int, lr: float = 0.1) -> Path:
    folder.mkdir(parents=True)
    config = {"method": {"name": "midway"}, "optim": {"lr": lr}}
    config |= {"run": {"folder": str(folder), "seed": seed}, "data": {"root": f"videos/{seed}"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_scores(folder: Path, network: object, miou: float, *, version=VERSION, **more) -> None:
    folder.mkdir(parents=True)
    encoder = {"network": str(network), "weights": "teacher", "features": "encoder"}
    values = {"protocol": {"name": "camvid-linear", "version": version}, "encoder": encoder}
    values |= {"miou": miou, "accuracy": 60.0, "seed": 0, "temperature": 0.07} | more
    (folder / "results.json").write_text(json.dumps(values))


def test_runs_of_other_seeds_are_one_group_with_mean_spread_and_number(tmp_path):
    for seed, miou in enumerate((20.0, 22.0, 27.0)):
        run = write_run(tmp_path / f"run-{seed}", seed=seed)
        write_scores(tmp_path / f"score-{seed}", run, miou)
    other = write_run(tmp_path / "other", seed=0, lr=0.2)
    write_scores(tmp_path / "score-other", other, 30.0)
    write_scores(tmp_path / "score-random", "random", 15.0)
    (table,) = tables_of(find_results([tmp_path]))
    assert table.metrics == ("miou", "accuracy")  # the temperature is a setting
    rows = {name.rpartition("/")[2]: str(row["miou"]) for name, row in table.rows.items()}
    assert rows == {
        "run-0": "23.00 ± 3.61 (20.00 to 27.00, n 3)",
        "other": "30.00 (n 1)",
        "random": "15.00 (n 1)",
    }


def test_versions_of_a_protocol_stay_apart_and_a_missing_score_is_not_run(tmp_path):
    write_scores(tmp_path / "a", "random", 15.0)
    write_scores(tmp_path / "b", "timm:vit", 40.0)
    write_scores(tmp_path / "c", "timm:vit", 41.0, version="0" * 12)
    tables = tables_of(find_results([tmp_path]))
    assert [len(table.rows) for table in tables] == [2, 1]
    _, rows = summary(tables)
    assert rows[0] == ("random", "15.00 (n 1)", "not run")


def test_student_and_teacher_of_a_run_have_names_of_their_own(tmp_path):
    run = write_run(tmp_path / "run", seed=0)
    write_scores(tmp_path / "teacher", run, 20.0)
    encoder = {"network": str(run), "weights": "student", "features": "encoder"}
    write_scores(tmp_path / "student", run, 21.0, encoder=encoder)
    (table,) = tables_of(find_results([tmp_path]))
    names = sorted(name.rpartition("/")[2] for name in table.rows)
    assert names == ["run (student, encoder)", "run (teacher, encoder)"]


def test_a_flow_finetuning_has_its_tests_and_renderings(tmp_path):
    folder = tmp_path / "flow"
    folder.mkdir()
    (folder / "config.json").write_text('{"start": {"network": "random", "keep": "all"}}')
    values = {
        "protocol": {"name": "paper", "version": VERSION},
        "run": str(folder),
        "epe": 4.5,
        "overlap": 0.9,
        "renderings": {"clean": 4.0, "final": 5.0},
        "tests": {"things test": {"epe": 7.0}},
    }
    (folder / "results.json").write_text(json.dumps(values))
    (result,) = find_results([folder])
    assert result.metrics == {
        "epe": 4.5,
        "epe clean": 4.0,
        "epe final": 5.0,
        "things test epe": 7.0,
    }


def test_the_command_prints_markdown_and_writes_one_page_with_pictures(tmp_path, capsys):
    from PIL import Image

    for name in ("random", "timm:vit"):
        folder = tmp_path / name.replace(":", "_")
        write_scores(folder, name, 15.0)
        (folder / "pictures").mkdir()
        Image.new("RGB", (60, 20), (200, 30, 30)).save(folder / "pictures" / "street.png")
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "| network | camvid-linear: miou |" in out
    assert "| random | 15.00 (n 1) |" in out
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page.pdf")]) == 2
    assert "page.pdf: is written as HTML; give a name like" in capsys.readouterr().err
    html = page.read_text()
    assert html.count("street.png, as drawn") == 1
    assert "http" not in html.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no results.json"),
        ("{}", "is not a result of midway eval"),
        ('{"protocol": {"name": "a", "version": "1"}, "tests": 1}', "is not a result of midway"),
        ('{"protocol": {"name": "a", "version": "1"}, "levels": {"3": 1}}', "is not a result"),
        ("{", "JSON"),
    ],
)
def test_a_folder_without_results_or_a_damaged_file_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(MidwayError, match=message):
        find_results([tmp_path])


def test_a_result_that_is_named_twice_counts_once(tmp_path, monkeypatch):
    write_scores(tmp_path / "a", "random", 20.0)
    monkeypatch.chdir(tmp_path)
    assert len(find_results([Path(), tmp_path / "a"])) == 1


def test_scores_in_groups_have_names_of_their_groups_and_a_result_without_any_is_no_column(
    tmp_path,
):
    levels = {"1": {"near": {"heatmap": 0.5, "features": 0.4}}}
    write_scores(tmp_path / "a", "random", 20.0, levels=levels)
    write_scores(tmp_path / "b", "random", None, version="0" * 12, accuracy=None, smallest=3.0)
    with_scores, without = tables_of(find_results([tmp_path]))
    assert with_scores.metrics == (
        *("miou", "accuracy", "level 1 near heatmap", "level 1 near features"),
    )
    assert without.metrics == ()
    assert len(summary([with_scores, without])[0]) == 2
