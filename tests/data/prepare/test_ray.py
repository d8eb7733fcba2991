"""Preparing on a cluster: the rows of a local run, and a clip that crashes its process."""

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import lance
import pytest

from midway.data.clips.store import StoreConfig
from midway.data.prepare.decode import ClipSource
from midway.data.prepare.pipeline import find_sources, prepare
from midway.data.prepare.ray import RayWorkers
from midway.data.prepare.writer import ClipWriter, WriteResult
from midway.data.workers.pool import Reading
from tests.data.video.made_videos import even_times, waves, write_video

CONFIG = StoreConfig(fps=10, short_side=48)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3, 7):
        write_video(folder / f"clip{number}.mp4", even_times(17 + number, 20), picture=waves)
    return folder


@pytest.fixture(scope="module")
def ray_cluster() -> Any:
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        configure_logging=False,
    )
    yield ray
    ray.shutdown()


def test_ray_gives_the_same_rows_also_for_relative_paths(
    tmp_path, videos, ray_cluster, monkeypatch
):
    (tmp_path / "videos").symlink_to(videos)
    monkeypatch.chdir(tmp_path)  # where the cluster was started is another folder
    prepare("videos", "ray.lance", CONFIG, on_ray=True, commit_seconds=0)
    prepare("videos", "local.lance", CONFIG, jobs=0)
    one, other = (lance.dataset(f"{name}.lance").to_table() for name in ("ray", "local"))
    assert one.num_rows == 10 + 11 + 11 + 12
    assert one.equals(other)


class CrashingWriter(ClipWriter):
    """As a decoder that dies on one clip."""

    def __call__(self, sources: tuple[ClipSource, ...], reading: Reading) -> WriteResult:
        if any(source.name == "clip4.mp4" and not reading.lost for source in sources):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sources, reading)


def test_ray_names_the_clip_that_crashes_its_process(tmp_path, videos, ray_cluster):
    destination = str(tmp_path / "s.lance")
    prepare(str(videos / "clip6.mp4"), destination, CONFIG, jobs=0)
    sources = [each.source for each in find_sources(str(videos), source_fps=30)]
    writer = CrashingWriter(destination=destination, config=CONFIG)
    with closing(RayWorkers(writer, timeout_seconds=60)) as workers:
        written = list(workers.map([(*sources[:3],), (sources[3],)]))
    assert [each.frames for each in written] == [10, 0, 11, 12]
    (skipped,) = written[1].skipped
    assert skipped.clip == "clip4.mp4"
    assert f"{videos / 'clip4.mp4'}: ends the process that reads it (Worker" in skipped.reason
