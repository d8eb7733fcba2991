"""Flow files: exact round trips, real files read right, bad ones refused in plain words."""

from pathlib import Path

import numpy as np
import pytest

from midway.data.flow_files import read_flo, write_flo
from midway.errors import MidwayError


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 30, (5, 7, 2)).astype(np.float32)


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, flow):
    write_flo(tmp_path / "a.flo", flow)
    again = read_flo(tmp_path / "a.flo")
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, flow)
    again += 1  # readers may edit what they got


def test_the_bytes_are_those_of_the_format(tmp_path: Path):
    flow = np.array([[[1.5, -2.0], [0.0, 4.0], [3.0, 5.0]]], np.float64)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert np.frombuffer(data[:4], "<f4")[0] == 202021.25
    assert data[4:12] == bytes([3, 0, 0, 0, 1, 0, 0, 0])
    assert np.frombuffer(data[12:], "<f4").tolist() == [1.5, -2, 0, 4, 3, 5]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"PFEI" + data[4:], "not a .flo file"),
        (lambda data: b"", "not a .flo file"),
        (lambda data: data[:9], "truncated"),
        (lambda data: data[:-1], "291 bytes"),
        (lambda data: data + b"\0", "293 bytes"),
        (lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:], "-1 x 5 pixels"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, flow, damage, message):
    path = tmp_path / "bad.flo"
    write_flo(path, flow)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MidwayError, match=message) as error:
        read_flo(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (0, 7, 2)])
def test_flow_of_a_wrong_shape_is_not_written(tmp_path: Path, shape):
    with pytest.raises(MidwayError, match=r"give \(height, width, 2\)"):
        write_flo(tmp_path / "a.flo", np.zeros(shape, np.float32))
    assert not (tmp_path / "a.flo").exists()


@pytest.mark.parametrize(
    ("name", "shape", "mean_pixels", "unknown_share"),
    [
        ("sintel/flow/temple_3/frame_0022.flo", (436, 1024), 57, 0.0),
        ("middlebury/Dimetrodon/flow10.flo", (388, 584), 2, 0.048),
        ("flyingchairs/0000000-gt.flo", (384, 512), None, 0.0),
    ],
)
def test_real_files_give_their_known_size_motion_and_unknown_share(
    shared_data: Path, name, shape, mean_pixels, unknown_share
):
    flow = read_flo(shared_data / "flow" / name)
    known = np.abs(flow).max(axis=-1) < 1e6
    assert flow.shape == (*shape, 2)
    assert 1 - known.mean() == pytest.approx(unknown_share, abs=0.001)
    if mean_pixels is not None:
        assert np.hypot(*flow[known].T).mean() == pytest.approx(mean_pixels, abs=0.5)


def test_real_files_are_written_back_unchanged(shared_data: Path, tmp_path: Path):
    real = shared_data / "flow/sintel/flow/alley_1/frame_0001.flo"
    write_flo(tmp_path / "a.flo", read_flo(real))
    assert (tmp_path / "a.flo").read_bytes() == real.read_bytes()
