"""`midway quickstart`, from video files to the report, in a size for tests."""

import json
from pathlib import Path

import pytest

from midway.cli import main, quickstart, quickstart_report


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (quickstart, quickstart_report):
        monkeypatch.setattr(module, "NUM_VIDEOS", 4, raising=module is quickstart_report)
    for module in (quickstart, quickstart_report):
        monkeypatch.setattr(
            module, "PROBE_TRAIN", range(1_000_000, 1_000_004), raising=module is quickstart_report
        )
    for module in (quickstart, quickstart_report):
        monkeypatch.setattr(
            module, "PROBE_TEST", range(2_000_000, 2_000_003), raising=module is quickstart_report
        )
    for module in (quickstart, quickstart_report):
        monkeypatch.setattr(module, "SHOWN", 2, raising=module is quickstart_report)


def test_it_trains_on_video_files_and_writes_a_report_with_every_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quickstart"
    assert main(["quickstart", "--folder", str(folder), "--steps", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(list((folder / "videos").glob("*.mp4"))) == 4
    assert (folder / "run" / "metrics.jsonl").read_text().count("\n") == 2
    for name in ("untrained", "trained"):
        assert 0 <= result[name]["segmentation"]["miou"] <= 100
        assert result[name]["patch_flow"]["epe_zero"] > 0
        assert result[name]["camera_motion"]["epe"] > 0
    html = Path(result["report"]).read_text()
    assert html.count("<img") == 5
    for text in (
        "Recognition",
        "Motion",
        "untrained",
        f"{result['trained']['segmentation']['miou']:.1f}",
    ):
        assert text in html


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["quickstart", "--folder", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
