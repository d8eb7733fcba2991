"""`midway quickstart`, from video files to the report, in a size for tests."""

import json
import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from midway.cli import main, quickstart, quickstart_plan, quickstart_probes, quickstart_report
from midway.cli.quickstart_plan import MIN_STEPS, TARGET_SECONDS, Plan, choose_steps
from midway.cli.quickstart_reference import REFERENCE


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "NUM_VIDEOS", 4)
    monkeypatch.setattr(quickstart_probes, "PROBE_TRAIN", range(14_000_000, 14_000_004))
    monkeypatch.setattr(quickstart_probes, "PROBE_TEST", range(15_000_000, 15_000_003))
    for module in (quickstart_probes, quickstart_report):
        monkeypatch.setattr(module, "SHOWN", 2)
    for name in ("WARM_UP_STEPS", "TIMED_STEPS"):
        monkeypatch.setattr(quickstart_plan, name, 1)


def test_it_trains_on_video_files_and_writes_a_report_with_every_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quickstart"
    assert main(["quickstart", "--folder", str(folder), "--steps", "2", "--json"]) == 0
    printed = capsys.readouterr().out
    assert "expected on this machine: " in printed
    result = json.loads(printed.splitlines()[-1])
    assert result["steps"] == 2
    assert len(list((folder / "videos").glob("*.mp4"))) == 4
    assert (folder / "run" / "metrics.jsonl").read_text().count("\n") == 2
    for name in ("untrained", "trained"):
        assert 0 <= result[name]["segmentation"]["miou"] <= 100
        assert result[name]["patch_flow"]["epe_zero"] > 0
        assert result[name]["camera_motion"]["epe"] > 0
    for name in ("untrained", "trained", quickstart_probes.FILTERS):
        assert 0 <= result[name]["knn"]["miou"] <= 100
    html = Path(result["report"]).read_text()
    assert html.count("<img") == 5
    for text in (
        "Recognition",
        "Motion",
        "untrained",
        quickstart_probes.FILTERS,
        quickstart_probes.SHIPPED,
        *REFERENCE,
        f"{result['trained']['segmentation']['miou']:.1f}",
        "midway quickstart --seed 0 --steps 2",
        "What next",
    ):
        assert text in html
    alts = re.findall(r'alt="([^"]+)"', html)
    assert len({*alts}) == 5
    assert all(alt.endswith(".") and len(alt) > 40 for alt in alts)
    # The command for a video of this folder runs as it is printed.
    (line,) = [each for each in html.splitlines() if "midway track" in each]
    words = shlex.split(unescape(line[line.index("midway track") :]))[1:]
    assert main([*words, "--fps", "1"]) == 0
    assert (folder / "tracks.mp4").is_file()


def test_steps_are_those_that_fit_into_the_time() -> None:
    def plan(step_seconds: float, steps: int | None = None) -> Plan:
        return choose_steps(steps, full_steps=1500, step_seconds=step_seconds, video_seconds=30.0)

    fast, slow, slowest = plan(0.15), plan(0.47), plan(10.0)
    assert (fast.steps, fast.reason) == (1500, "")
    assert str(fast) == f"expected on this machine: {fast.seconds / 60:.1f} minutes."
    assert slow.steps < 600
    assert slow.seconds == pytest.approx(TARGET_SECONDS, abs=0.5)
    assert f"{slow.steps} steps instead of 1,500" in str(slow)
    assert slowest.steps == MIN_STEPS
    asked = plan(10.0, steps=1500)
    assert (asked.steps, asked.reason) == (1500, "")
    assert asked.seconds > 15_000


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [("steps", "0", "1 or more"), ("steps", "-3", "1 or more"), ("seed", "-1", "0 or more")],
)
def test_a_run_of_no_steps_or_a_negative_seed_is_refused(
    option: str, value: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quickstart", "--folder", str(tmp_path / "new"), f"--{option}", value]) == 2
    assert f"--{option} {value}: give {remedy}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["quickstart", "--folder", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
