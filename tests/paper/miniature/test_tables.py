"""The page's tables are those of the committed records; missing cells and ties are shown."""

from dataclasses import replace
from pathlib import Path

import pytest

from midway.errors import MidwayError
from midway.evals.metrics.bootstrap import Row
from midway.paper.miniature.protocol import LONG, PROTOCOL
from midway.paper.miniature.records import Record, read_records
from midway.paper.miniature.tables import BEGIN, END, page, tables

DOCS = Path(__file__).parents[3] / "docs"


def record_of(arm: str, share: float, *, seed: int = 0, failure: str = "") -> Record:
    rows: list[Row] = [([100 * share], [100.0])] * 4
    return Record(
        protocol=PROTOCOL.hash(),
        config="",
        purpose="report",
        dataset="synthetic",
        arm=arm,
        seed=seed,
        trial=0,
        steps=1,
        failure=failure,
        seconds={"train": 12.0, "evaluate": 1.0},
        rows={} if failure else {"near": rows},
    )


def line_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_the_tables_of_the_records():
    text = (DOCS / "MINIATURE.md").read_text()
    records = read_records(DOCS / "miniature", PROTOCOL)
    long = read_records(DOCS / "miniature" / "long", LONG)
    assert page(text, {"": (records, PROTOCOL), "Twice as long": (long, LONG)}) == text


def test_rows_count_seeds_and_failures_and_say_what_was_not_run():
    records = [
        record_of("dino", 0.2),
        record_of("dino", 0.4, seed=1),
        record_of("dino", 0, seed=2, failure="diverged"),
    ]
    text = tables(records, PROTOCOL)
    assert line_of(text.split("### Synthetic")[1], "DINO on pairs") == [
        *("DINO on pairs", "3 of 5", "1", "30.0 (20.0 to 40.0)", "12")
    ]
    assert line_of(text.split("### Synthetic")[1], "MAE") == ["MAE", "0 of 5", "0", "not run", ""]
    assert "3 of 126 reported cells are done, 1 of them failed" in text


def test_a_title_stands_before_the_tables_of_a_protocol_with_its_own_seeds():
    rows: list[Row] = [([40.0], [100.0])] * 4
    records = [
        replace(record_of(arm, 0.5), rows={"window_patches": rows}) for arm in ("midway", "croco")
    ]
    text = tables(records, LONG, title="Long")
    assert line_of(text.split("### Long: Synthetic")[1], "CroCo v2")[1] == "1 of 3"
    (line,) = [line for line in text.splitlines() if line.endswith("intervals touch |")]
    assert "linear in windows, no class token" in line
    assert "CroCo" in line


def test_a_comparison_says_if_intervals_touch_and_who_is_ahead():
    equal = [record_of("midway", 0.5), record_of("dino", 0.5), record_of("untrained", 0.1)]
    lines = tables(equal, PROTOCOL).split("### Midway beside")[1].splitlines()
    (dino,) = [line for line in lines if "DINO" in line]
    (untrained,) = [line for line in lines if "untrained" in line]
    assert dino.endswith("| 0.0 (0.0 to 0.0) | intervals touch |")
    assert untrained.endswith("| 40.0 (40.0 to 40.0) | ahead, intervals do not touch |")


def test_a_page_without_a_place_for_tables_is_refused():
    parts = {"": ([], PROTOCOL), "Long": ([], LONG)}
    text = page(f"a\n{BEGIN}\nold\n{END}\nb", parts)
    assert text.startswith(f"a\n{BEGIN}\n\nProtocol `{PROTOCOL.hash()}`")
    assert text.endswith(f"{END}\nb")
    assert text.count("### Trials") == 1
    assert "### Long: CamVid\n\nNo cell has been run.\n" in text
    assert "### Long: Midway beside the others" in text
    with pytest.raises(MidwayError, match="has no lines"):
        page("text", parts)
