"""The data benchmark on small videos: every layout and stage, and what it says of them."""

from dataclasses import astuple

import av
import torch

from midway.bench.clips import FPS, HEIGHT, WIDTH, make_clip
from midway.bench.data import STAGES, DataBenchmark, LayoutTimes
from midway.data.clips.store import StoreConfig
from midway.data.prepare.measure import Sampling
from tests.data.video.made_videos import even_times, waves, write_frames, write_video

BENCHMARK = DataBenchmark(
    sampling=Sampling(num_clips=2, timed_seconds=0.01),
    clips=Sampling(num_clips=2, num_frames=5, gap_seconds=(0.1, 0.1), timed_seconds=0.01),
    at_keyframes=True,
    short_sides=(48,),
    store=StoreConfig(),
    device=torch.device("cpu"),
    batch_size=1,
    announce=lambda text: None,
)


def check(times: LayoutTimes) -> None:
    stages = [getattr(times, stage) for stage in STAGES]
    assert all(milliseconds >= 0 for milliseconds in stages)
    # The stages up to RGB frames make up the time between two pairs.
    assert sum(stages[:3]) >= 0.99 * 1e3 / times.pairs_per_second
    assert getattr(times, times.limit) == max(stages)
    assert times.views > 0
    assert times.plain_views is not None
    assert times.plain_views > 0
    assert times.clip_frames_per_second is not None
    assert times.clip_frames_per_second > 0


def test_videos_are_measured_as_they_are_and_from_a_store(tmp_path):
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", even_times(30), picture=waves)
    direct, store = BENCHMARK.run(str(tmp_path))
    assert (direct.layout, direct.short_side) == ("the source files", 96)
    assert (store.layout, store.short_side) == ("store at 48", 48)
    check(direct)
    check(store)
    assert direct.open > 0
    assert direct.seek > 0
    assert direct.keyframes is not None
    assert min(astuple(direct.keyframes)) > 0
    assert store.keyframes is None


def test_frames_in_folders_are_measured_too(tmp_path):
    write_frames(tmp_path / "clip", [f"{number}.png" for number in range(60)])
    direct, _ = BENCHMARK.run(str(tmp_path))
    check(direct)
    assert direct.layout == "the source files"


def test_made_clips_have_the_size_rate_and_keyframes_they_promise(tmp_path):
    path = tmp_path / "made.mp4"
    make_clip(path, gop=5, seed=0, seconds=0.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (WIDTH, HEIGHT, FPS)
        packets = [packet for packet in container.demux(stream) if packet.size]
        frames = [frame for packet in packets for frame in packet.decode()]
    keyframes = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert keyframes == [0, 5, 10]
    first, last = (frame.to_ndarray(format="gray").astype(int) for frame in (frames[0], frames[-1]))
    assert abs(first - last).mean() > 5
