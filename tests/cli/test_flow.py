"""midway flow: files of two images, a video of a video, one line for what is wrong."""

import json
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli import main
from midway.cli.flow import flow
from midway.data.flow.colours import flow_to_rgb
from midway.data.flow.files import read_flow
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.data.video.frame_times import read_frame_seconds
from midway.models.flow.network import FlowNetwork, save_flow_network
from midway.models.flow.predictor import FlowMethod, with_level
from midway.models.midway import MidwayNetwork
from midway.models.weights.save import save
from midway.nn.images import normalise
from tests.data.flow import made_flow_sets as made
from tests.data.video.made_videos import write_video
from tests.models.flow.test_network import CONFIG
from tests.models.networks import tiny

SIZE = (48, 64)


@pytest.fixture
def images(tmp_path: Path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for step, path in enumerate(paths):
        made.save(path, made.scene(step, SIZE))
    return [str(path) for path in paths]


FACTOR = 5  # a video of 48 rows is enlarged to 240


def flow_part(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow beside the image, below the bar with the captions."""
    height, width = (FACTOR * side for side in size)
    return frame[-height:, -width:]


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_two_images_give_a_flow_file_and_its_picture(images, tmp_path: Path, capsys):
    out, picture = tmp_path / "out.flo", tmp_path / "out.png"
    assert main(["flow", *images, "-o", str(out), "--picture", str(picture), "--json"]) == 0
    found = read_flow(out)
    assert found.shape == (*SIZE, 2)
    middle = found[12:-12, 12:-12]
    assert np.abs(np.median(middle, axis=(0, 1)) - made.SHIFT).max() < 0.5
    result = last_line(capsys)
    assert result["max_pixels"] == pytest.approx(np.hypot(*found.T).max(), rel=1e-5)
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    # Source, target and flow side by side, above the wheel: most of the last third is the shift.
    colour = flow_to_rgb(np.array(made.SHIFT), result["max_pixels"]).astype(int)
    last = pixels[: pixels.shape[0] // 2, -pixels.shape[1] // 4 :]
    assert np.abs(np.median(last, axis=(0, 1)) - colour).max() < 40


def test_a_png_of_flow_is_said_to_be_no_picture(images, tmp_path: Path, capsys):
    for name, is_noted in (("out.png", True), ("out.flo", False)):
        assert main(["flow", *images, "-o", str(tmp_path / name)]) == 0
        assert ("KITTI's format" in capsys.readouterr().out) is is_noted


@pytest.mark.parametrize("method", ["features", "dynamics"])
def test_the_level_is_one_that_the_network_has(images, tmp_path: Path, capsys, method: str):
    words = ["flow", *images, "-o", str(tmp_path / "out.flo"), "--method", method]
    assert main([*words, "--network", "synthetic-tiny"]) == 0
    assert main([*words, "--network", "synthetic-tiny", "--level", "7"]) == 2
    assert "level" in capsys.readouterr().err


def test_the_default_level_is_the_lowest_of_the_dynamics(tmp_path: Path):
    config = tiny()
    save(MidwayNetwork(config), tmp_path / "net.safetensors")
    how = FlowMethod(method="features", network=tmp_path / "net.safetensors")
    assert with_level(how).level == config.dynamics.levels[0]
    assert with_level(replace(how, level=2)).level == 2
    assert with_level(replace(how, network=Path("random"))).level == 3


def test_a_finetuned_network_finds_flow_in_tiles_of_its_crop(images, tmp_path: Path):
    torch.manual_seed(0)
    network = FlowNetwork(replace(CONFIG, crop=(32, 32))).eval()
    save_flow_network(network, tmp_path / "net.safetensors")
    words = ["--method", "finetuned", "--network", str(tmp_path / "net.safetensors")]
    out = tmp_path / "out.npy"
    assert main(["flow", *images, "-o", str(out), *words, "--overlap", "0"]) == 0
    # The corner is covered by the first tile alone.
    frames = (torch.from_numpy(made.scene(step, SIZE)[:32, :32].copy()) for step in (0, 1))
    source, target = (normalise(frame.permute(2, 0, 1)[None] / 255) for frame in frames)
    with torch.no_grad():
        expected = network(source, target)[0, :2].permute(1, 2, 0)
    np.testing.assert_allclose(read_flow(out)[:16, :32], expected[:16], atol=1e-4)


@pytest.fixture
def video(tmp_path: Path):
    config = WorldConfig(height=48, width=64, num_frames=12, fps=8, num_objects=2)
    (path,) = write_videos(tmp_path, config, seeds=[0])
    return path


def decoded(path):
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)], rate


def test_a_video_gives_a_video_of_the_flow_of_each_frame_to_the_next(video, tmp_path: Path, capsys):
    out = tmp_path / "flow.mp4"
    words = ["flow", str(video), "-o", str(out), "--method", "zero", "--json"]
    assert main(words) == 0
    assert last_line(capsys) == {"out": str(out), "pairs": 11, "max_pixels": 1.0}
    frames, rate = decoded(out)
    assert len(frames) == 11
    assert rate == 8
    assert frames[0].shape[1] == 2 * FACTOR * 64 + 4
    for frame in frames:
        assert flow_part(frame, (48, 64))[:20, -20:].min() > 250  # no motion is white
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.mp4", video.name]


def test_the_colours_of_a_video_are_those_of_its_motion(tmp_path: Path):
    pan = tmp_path / "pan.mp4"
    with av.open(str(pan), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for step in range(4):
            image = made.scene(step, SIZE)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    flow(pan, out=tmp_path / "flow.mp4", max_pixels=5.0)
    frames, _ = decoded(tmp_path / "flow.mp4")
    expected = flow_to_rgb(np.array(made.SHIFT), 5.0).astype(int)
    for frame in frames:
        colour = np.median(flow_part(frame, SIZE), axis=(0, 1))
        assert np.abs(colour - expected).max() < 40


def test_one_scale_holds_for_the_whole_video(tmp_path: Path, monkeypatch, video):
    """Motion that grows along a video: a first pass finds the longest, so that no colour drifts."""
    lengths, drawn = [], []

    def predict(source, target):
        lengths.append(1.0 + len(lengths) % 11)
        return np.full((*source.shape[:2], 2), (lengths[-1], 0.0), np.float32)

    monkeypatch.setattr("midway.cli.flow.flow_predictor", lambda how: predict)
    monkeypatch.setattr(
        "midway.cli.flow.flow_to_rgb",
        lambda found, longest: (drawn.append(longest), flow_to_rgb(found, longest))[1],
    )
    result = flow(video, out=tmp_path / "flow.mp4")
    assert lengths == [1.0 + number % 11 for number in range(22)]
    assert {*drawn} == {11.0}
    assert result["max_pixels"] == 11.0


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path):
    peaks = []
    for number, length in enumerate((6, 48)):
        config = WorldConfig(height=48, width=64, num_frames=length, fps=8, num_objects=1)
        (path,) = write_videos(tmp_path, config, seeds=[number])
        tracemalloc.start()
        flow(path, out=tmp_path / "flow.mp4", how=FlowMethod(method="zero"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_only_the_two_frames_of_a_pair_and_their_flow_are_held(video, tmp_path: Path, monkeypatch):
    seen, alive = [], []

    def predict(source, target):
        found = np.zeros((*source.shape[:2], 2), np.float32)
        seen.extend(weakref.ref(each) for each in (target, found))
        alive.append(sum(ref() is not None for ref in seen))
        return found

    monkeypatch.setattr("midway.cli.flow.flow_predictor", lambda how: predict)
    flow(video, out=tmp_path / "flow.mp4", max_pixels=5.0)
    # The first source is not counted; the flow before may wait until this one takes its name.
    assert alive == [2] + [4] * 10


def test_pairs_for_the_scale_are_not_held_either(video, tmp_path: Path, monkeypatch):
    seen, alive = [], []

    def predict(source, target):
        found = np.zeros((*source.shape[:2], 2), np.float32)
        seen.append(weakref.ref(found))
        alive.append(sum(ref() is not None for ref in seen))
        return found

    monkeypatch.setattr("midway.cli.flow.flow_predictor", lambda how: predict)
    flow(video, out=tmp_path / "flow.mp4")
    assert len(alive) == 22
    assert max(alive) <= 2


def test_a_video_that_is_damaged_halfway_leaves_nothing(tmp_path: Path, capsys):
    config = WorldConfig(height=48, width=64, num_frames=200, fps=25, num_objects=2)
    (path,) = write_videos(tmp_path, config, seeds=[0])
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(len(data) // 4) + data[middle + len(data) // 4 :])
    assert main(["flow", str(path), "-o", str(tmp_path / "out.mp4"), "--method", "zero"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_video_whose_second_frame_is_lost_is_refused_as_a_single_frame(tmp_path: Path, capsys):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for step in range(2):
            image = made.scene(step, SIZE)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][1]
    assert second is not None
    path.write_bytes(path.read_bytes()[:second])
    assert main(["flow", str(path), "-o", str(tmp_path / "x.mp4"), "--method", "zero"]) == 2
    assert capsys.readouterr().err.endswith("has a single frame; give at least two frames\n")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_each_frame_of_an_uneven_video_is_used_once_at_its_own_time(tmp_path: Path, capsys):
    times = [0.0, 0.1, 0.2, 3.0, 3.02, 3.04, 3.5]
    path = write_video(tmp_path / "phone.mp4", times)
    out = tmp_path / "flow.mp4"
    assert main(["flow", str(path), "-o", str(out), "--method", "zero", "--json"]) == 0
    assert last_line(capsys)["pairs"] == 6
    assert read_frame_seconds(str(out)) == pytest.approx(times[:-1], abs=1e-3)


def test_a_network_that_predicts_nan_is_an_error_and_leaves_nothing(
    images, video, tmp_path: Path, capsys
):
    network = FlowNetwork(replace(CONFIG, crop=(32, 32)))
    # Finite, because weights with NaN are refused, but too large for the activations.
    network.head.before.weight.data.fill_(3e38)
    save_flow_network(network, tmp_path / "net.safetensors")
    words = [
        "--method",
        "finetuned",
        "--network",
        str(tmp_path / "net.safetensors"),
        "--overlap",
        "0",
    ]
    for inputs, out in ((images, "x.flo"), ([str(video)], "x.mp4")):
        assert main(["flow", *inputs, "-o", str(tmp_path / out), *words]) == 2
        error = capsys.readouterr().err
        assert error.endswith("predicted flow is not finite; check the network's weights\n")
        assert error.startswith(f"midway: {inputs[0]}: ")
    assert not list(tmp_path.glob("x.*"))


def one_frame(tmp_path: Path) -> Path:
    config = WorldConfig(height=48, width=64, num_frames=1, fps=8)
    return write_videos(tmp_path, config, seeds=[9])[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}", "{b}", "-o", "{tmp}/x.gif"], "is not a flow format"),
        (["{a}", "-o", "{tmp}/x.flo"], "give two images or a video"),
        (["{one}", "-o", "{tmp}/x.mp4"], "has a single frame"),
        (["{one}", "-o", "{tmp}/x.flo"], "give a name like flow.mp4"),
        (["{a}", "{small}", "-o", "{tmp}/x.flo"], "images differ in size"),
        (["{a}", "{text}", "-o", "{tmp}/x.flo"], "cannot be read as an image"),
        (["{a}", "{tmp}/none.png", "-o", "{tmp}/x.flo"], "none.png"),
        (["{a}", "{b}", "-o", "{tmp}/x.flo", "--method", "finetuned"], "give --network"),
        *(
            (["{a}", "{b}", "-o", "{tmp}/x.flo", "--method", method], "no network; give --network")
            for method in ("features", "dynamics")
        ),
        (["{a}", "{b}", "-o", "{tmp}/x.flo", "--network", "{a}"], "takes no network"),
        (["{a}", "{b}"], "--out"),
        (["{a}", "{b}", "-o", "{tmp}/no/x.flo"], "no folder"),
        (
            ["{a}", "{b}", "-o", "{tmp}/x.flo", "--picture", "{tmp}/x.flo2"],
            "is not an image format",
        ),
        (
            ["{a}", "{b}", "-o", "{tmp}/x.flo", "--picture", "{a}"],
            "is an input and would be overwritten",
        ),
        (["{a}", "{b}", "-o", "{tmp}/x.flo", "--max-pixels", "-1"], "give a length, or 0"),
        (["{a}", "{b}", "-o", "{tmp}/x.flo", "--radius", "0"], "give 1 patch or more"),
        (["{one}", "-o", "{tmp}/x.webm"], "ending in .mp4"),
        (["{one}", "-o", "{tmp}/x.mp4", "--picture", "{tmp}/x.png"], "leave --picture out"),
    ],
)
def test_what_is_wrong_is_one_line(images, tmp_path: Path, capsys, words, message):
    made.save(tmp_path / "small.png", made.scene(0, (40, 64)))
    (tmp_path / "text.png").write_text("no picture")
    names = {"a": images[0], "b": images[1], "one": one_frame(tmp_path), "tmp": tmp_path}
    names |= {"small": tmp_path / "small.png", "text": tmp_path / "text.png"}
    assert main(["flow", *(word.format(**names) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_a_colon_in_the_name_of_the_output_is_no_protocol(
    video, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["flow", str(video), "-o", "http:x.mp4"]) == 0
    assert [path.name for path in tmp_path.glob("http*")] == ["http:x.mp4"]


def test_a_folder_that_cannot_be_written_is_one_line_that_names_the_output(
    video, tmp_path: Path, capsys, monkeypatch
):
    opened = av.open

    def refuse_to_write(*words: Any, **options: Any) -> Any:
        if "w" in words:
            raise av.error.PermissionError(13, "Permission denied")
        return opened(*words, **options)

    monkeypatch.setattr(av, "open", refuse_to_write)
    assert main(["flow", str(video), "-o", str(tmp_path / "o.mp4")]) == 2
    assert capsys.readouterr().err == f"midway: {tmp_path / 'o.mp4'}: Permission denied\n"
