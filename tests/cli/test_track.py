"""midway track: a video with the tracks drawn, one line for what is wrong."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import midway
from midway.analysis.tracking import track_points
from midway.cli import main
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.data.video.frame_times import read_frame_seconds
from tests.data.video.made_videos import write_video
from tests.models.networks import random_network

CONFIG = WorldConfig(height=48, width=66, num_frames=6, fps=8, num_objects=2)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    torch.manual_seed(0)
    midway.save(random_network(), tmp_path / "net.safetensors")
    (tmp_path / "in").mkdir()
    (video,) = write_videos(tmp_path / "in", CONFIG, seeds=[0])
    return {"tmp": str(tmp_path), "net": str(tmp_path / "net.safetensors"), "video": str(video)}


def decoded(path: str) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(("options", "window"), [([], 64), (["--short-side", "32"], 0)])
def test_a_network_of_small_crops_sees_windows_by_default(
    files, tmp_path: Path, capsys, monkeypatch, options, window
):
    seen = {}

    def followed(**given):
        seen.update(given)
        return track_points(**given)

    monkeypatch.setattr("midway.cli.track.track_points", followed)
    words = ["--point", "20,9", "--network", files["net"], "-o", str(tmp_path / "out.mp4")]
    assert main(["track", files["video"], *words, "--method", "features", *options]) == 0
    # Two times the training size of 32 pixels.
    assert seen["window"] == window


def test_features_are_tracked_as_by_the_function_and_drawn(files, tmp_path: Path, capsys):
    out, picture = str(tmp_path / "out.mp4"), tmp_path / "out.png"
    words = ["--point", "20,9", "50,40", "--network", files["net"], "-o", out, "--json"]
    words += ["--method", "features", "--picture", str(picture), "--start-seconds", "0.26"]
    words += ["--window", "0"]
    assert main(["track", files["video"], *words]) == 0
    found = last_line(capsys)
    frames = torch.from_numpy(np.stack(decoded(files["video"]))).permute(0, 3, 1, 2)
    expected = track_points(
        midway.load(files["net"]),
        frames,
        torch.tensor([[20.0, 9], [50, 40]]),
        torch.tensor([2, 2]),
        method="features",
    )
    torch.testing.assert_close(torch.tensor(found["points"]), expected.points)
    torch.testing.assert_close(torch.tensor(found["confidence"]), expected.confidence)
    assert found["seconds"] == pytest.approx([number / 8 for number in range(6)])
    drawn = decoded(out)
    # Frames are enlarged five times, with a bar for the time above them and a legend below.
    assert {frame.shape for frame in drawn} == {(drawn[0].shape[0], 5 * 66, 3)}
    above = (drawn[2][:, :4].max((1, 2)) > 60).argmax()
    red, green, blue = drawn[2][above + 5 * 9 + 2, 5 * 20 + 2].astype(int)  # the first is orange
    assert red > green > blue + 40
    with Image.open(picture) as strip:
        assert strip.height > 240


def test_an_encoder_alone_is_tracked_from_patch_to_patch(files, tmp_path: Path, capsys):
    encoder = midway.load(files["net"]).encoder
    path = tmp_path / "encoder.safetensors"
    midway.save(encoder, path)
    words = ["--point", "20,9", "--network", str(path), "-o", str(tmp_path / "out.mp4"), "--json"]
    words += ["--method", "chained", "--window", "0"]
    assert main(["track", files["video"], *words]) == 0
    frames = torch.from_numpy(np.stack(decoded(files["video"]))).permute(0, 3, 1, 2)
    point, start = torch.tensor([[20.0, 9]]), torch.tensor([0])
    expected = track_points(encoder, frames, point, start, method="chained")
    found = last_line(capsys)["points"]
    torch.testing.assert_close(torch.tensor(found), expected.points)


def test_networks_are_drawn_side_by_side_and_all_are_in_the_json(files, tmp_path: Path, capsys):
    torch.manual_seed(1)
    midway.save(random_network(), tmp_path / "other.safetensors")
    networks = [files["net"], str(tmp_path / "other.safetensors")]
    out = str(tmp_path / "out.mp4")
    words = ["--point", "20,9", "--network", *networks, "-o", out, "--json", "--fps", "4"]
    assert main(["track", files["video"], *words, "--method", "features"]) == 0
    found = last_line(capsys)
    assert list(found["networks"]) == networks
    assert found["points"] == found["networks"][networks[0]]["points"]
    assert found["points"] != found["networks"][networks[1]]["points"]
    assert decoded(out)[0].shape[1] == 2 * 5 * 66 + 4


@pytest.mark.parametrize("method", ["midway", "heatmap"])
def test_the_other_methods_run_at_a_lower_rate(files, tmp_path: Path, capsys, method):
    out = str(tmp_path / "out.mp4")
    words = ["--point", "20,9", "--network", files["net"], "-o", out, "--json", "--fps", "4"]
    assert main(["track", files["video"], *words, "--method", method, "--draws", "2"]) == 0
    assert last_line(capsys)["seconds"] == pytest.approx([0, 0.25, 0.5])
    with av.open(out) as container:
        assert container.streams.video[0].average_rate == 4


def test_flow_needs_no_network_unless_it_is_of_features(files, tmp_path: Path, capsys):
    words = ["track", files["video"], "--point", "20,9", "--method", "flow", "--json"]
    words += ["-o", str(tmp_path / "out.mp4")]
    assert main([*words, "--flow.method", "zero"]) == 0
    assert last_line(capsys)["points"] == [[[20, 9]] * 6]
    assert main([*words, "--flow.method", "features", "--network", files["net"]]) == 0
    assert last_line(capsys)["points"] != [[[20, 9]] * 6]


def test_each_frame_of_an_uneven_video_is_tracked_once_at_its_own_time(tmp_path: Path, capsys):
    times = [0.0, 0.01, 0.02, 3.0, 3.1, 3.5]
    path = write_video(tmp_path / "phone.mp4", times)
    out = tmp_path / "out.mp4"
    words = ["track", str(path), "--point", "20,9", "--method", "flow", "--flow.method", "zero"]
    assert main([*words, "-o", str(out), "--json"]) == 0
    assert last_line(capsys)["seconds"] == pytest.approx(times, abs=1e-3)
    assert read_frame_seconds(str(out)) == pytest.approx(times, abs=1e-3)


def one_frame(tmp_path: Path) -> str:
    config = WorldConfig(height=48, width=64, num_frames=1, fps=8)
    return str(write_videos(tmp_path / "in", config, seeds=[9])[0])


def test_each_network_has_a_method_of_its_own_as_in_figure_7(files, tmp_path: Path, capsys):
    encoder = tmp_path / "encoder.safetensors"
    midway.save(midway.load(files["net"]).encoder, encoder)
    out, shown = tmp_path / "out.mp4", ["--point", "20,9", "--fps", "4", "--draws", "2", "--json"]
    words = ["track", files["video"], *shown, "-o", str(out), "--network"]
    alone = {}
    for network, method in ((files["net"], "midway"), (str(encoder), "chained")):
        assert main([*words, network, "--method", method]) == 0
        alone[f"{network}, {method}"] = last_line(capsys)["points"]
        out.unlink()
    assert main([*words, files["net"], str(encoder), "--method", "midway", "chained"]) == 0
    found = {row: tracks["points"] for row, tracks in last_line(capsys)["networks"].items()}
    assert found == alone
    assert decoded(str(out))[0].shape[1] == 2 * 5 * 66 + 4


def test_one_network_is_drawn_by_several_methods(files, tmp_path: Path, capsys):
    words = ["--point", "20,9", "--fps", "4", "-o", str(tmp_path / "out.mp4"), "--json"]
    words += ["--network", files["net"], "--method", "features", "chained"]
    assert main(["track", files["video"], *words]) == 0
    assert list(last_line(capsys)["networks"]) == [
        f"{files['net']}, features",
        f"{files['net']}, chained",
    ]


def two_sizes(tmp_path: Path) -> str:
    """A stream that goes on with larger frames."""
    path = tmp_path / "in" / "mixed.ts"
    for place, height in enumerate((48, 64)):
        part = path.with_suffix(f".{height}.ts")
        with av.open(str(part), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
            for number in range(4 * place, 4 * place + 4):
                frame = av.VideoFrame.from_ndarray(np.zeros((height, 64, 3), np.uint8), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 8)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{video}", "--point", "66,3"], "point 66,3 is outside the image of 66 x 48 pixels"),
        (["{video}", "--point", "3"], "point '3': is not X,Y"),
        (["{one}", "--point", "3,3"], "has a single frame"),
        (["{video}", "--point", "3,3", "--level", "4"], "level 4 has no forward model"),
        (["{video}", "--point", "3,3", "--start-seconds", "9"], "the last frame is at 0.62 s"),
        (["{video}", "--point", "3,3", "--fps", "-1"], "--fps -1: give"),
        (["{video}", "--point", "3,3", "-o", "{tmp}/x.png"], "give a name like tracks.mp4"),
        (["{video}", "--point", "3,3", "-o", "{video}"], "is an input and would be overwritten"),
        (["{video}", "--point", "3,3", "--picture", "{tmp}/x.flo"], "is not an image format"),
        (["{net}", "--point", "3,3"], "net.safetensors"),
        (["{tmp}", "--point", "3,3"], "is not a video file; give one"),
        (["{tmp}/none.mp4", "--point", "3,3"], "none.mp4: no such file; check the path"),
        (["{mixed}", "--point", "3,3"], "changes its frame size between"),
        (["{video}", "--point", "3,3", "--network", "{tmp}/none.pth"], "no such file or folder"),
        (["{video}", "--point", "3,3", "--method", "flo"], "flow"),
        (["{video}", "--point", "3,3", "--network"], "--network"),
        (["{video}", "--point", "3,3", "--method"], "--method: 0 for 1 network; give one"),
        (
            [
                "{video}",
                "--point",
                "3,3",
                "--network",
                "{net}",
                "{tmp}",
                "--method",
                *3 * ["plain"],
            ],
            "--method: 3 for 2 networks; give one, or one for each network",
        ),
    ],
)
def test_what_is_wrong_is_one_line(files, tmp_path: Path, capsys, words, message):
    files |= {"one": one_frame(tmp_path), "mixed": two_sizes(tmp_path)}
    given = [word.format(**files) for word in words]
    if "--network" not in words:
        given += ["--network", files["net"]]
    if "-o" not in words:
        given += ["-o", str(tmp_path / "x.mp4")]
    assert main(["track", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_a_real_video_is_tracked_from_its_middle_both_ways(
    shared_data: Path, files, tmp_path: Path, capsys
):
    video, out = shared_data / "video/davis_clips/blackswan.mp4", str(tmp_path / "out.mp4")
    words = ["--point", "430,150", "--start-seconds", "0.8", "--fps", "5", "--method", "features"]
    words += ["--network", files["net"], "--short-side", "64", "-o", out, "--json"]
    assert main(["track", str(video), *words]) == 0
    found = last_line(capsys)
    assert found["seconds"] == pytest.approx([number / 5 for number in range(9)], abs=0.02)
    assert found["points"][0][4] == [430, 150]
    assert found["confidence"][0][4] == 1
    assert [frame.shape[1] for frame in decoded(out)] == [854] * 9
