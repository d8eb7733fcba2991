"""Cores by affinity, quota and load; the files of the system are made by the tests."""

from pathlib import Path

import pytest

from midway import cores


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {}, float("inf")),
        ("0::/", {"cpu.max": "max 100000"}, float("inf")),
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("4:memory:/x\n1:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "400000"}, float("inf")),
        (
            "1:cpu,cpuacct:/a\n0::/",
            {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        (
            "1:cpu:/",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            float("inf"),
        ),
    ],
)
def test_the_smallest_quota_of_a_control_group_and_its_parents_counts(
    tmp_path: Path, groups: str, files: dict[str, str], quota: float
) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(groups + "\n")
    assert cores._quota(tmp_path / "cgroup", tmp_path / "own") == quota


def test_a_quota_below_the_affinity_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_allowed", lambda: {*range(8)})
    for quota, usable in ((float("inf"), 8), (2.5, 2), (0.5, 1), (16.0, 8)):
        monkeypatch.setattr(cores, "_quota", lambda quota=quota: quota)
        assert cores.usable_cores() == usable


def test_cores_that_others_use_are_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_allowed", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(cores, "_quota", lambda: float("inf"))
    monkeypatch.setattr(cores.time, "sleep", lambda seconds: None)
    for idle, free in ((0.8, 4), (0.6, 3), (0.32, 2), (0.0, 1)):
        times, idles = iter([10.0, 10.2]), iter([50.0, 50.0 + idle])
        monkeypatch.setattr(cores.time, "monotonic", lambda times=times: next(times))
        monkeypatch.setattr(cores, "_idle_seconds", lambda allowed, idles=idles: next(idles))
        assert cores.free_cores() == free


def test_idle_time_is_that_of_the_allowed_cores(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 9 9 9 900 90 0\ncpu0 1 2 3 400 20 0\ncpu1 1 2 3 500 70 0\nintr 5\n")
    ticks = cores.os.sysconf("SC_CLK_TCK")
    assert cores._idle_seconds({1}, stat) == 570 / ticks
    assert cores._idle_seconds({0, 1}, stat) == 990 / ticks
    assert cores._idle_seconds({2}, stat) is None
    assert cores._idle_seconds({0}, tmp_path / "none") is None
