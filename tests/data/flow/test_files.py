"""Flow files: exact round trips, real files read right, bad ones refused in plain words."""

import io
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.flow.checks import is_known
from midway.data.flow.files import read_flo, read_flow, write_flo, write_flow
from midway.errors import MidwayError
from tests.data.flow import fake_h5py


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 30, (5, 7, 2)).astype(np.float32)


@pytest.fixture
def h5py(monkeypatch):
    """The real one if it is installed."""
    if find_spec("h5py") is None:
        monkeypatch.setitem(sys.modules, "h5py", fake_h5py)


def test_flow_is_read_back_bit_for_bit(tmp_path: Path, flow):
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


@pytest.mark.parametrize("suffix", [".flo", ".pfm", ".flo5"])
def test_unknown_flow_comes_back_infinite(tmp_path: Path, flow, h5py, suffix):
    flow[1, 2] = np.inf
    flow[3, 4, 0] = -np.inf
    write_flow(tmp_path / f"a{suffix}", flow)
    again = read_flow(tmp_path / f"a{suffix}")
    assert (again[1, 2] == np.inf).all()
    assert (again[3, 4] == np.inf).all()
    known = is_known(flow)
    assert known.sum() == 33
    np.testing.assert_array_equal(again[known], flow[known])


def test_kitti_keeps_unknown_flow_and_known_flow_to_half_a_step(tmp_path: Path, flow):
    flow[1, 2] = np.inf
    write_flow(tmp_path / "a.png", flow)
    again = read_flow(tmp_path / "a.png")
    np.testing.assert_array_equal(is_known(again), is_known(flow))
    known = is_known(flow)
    np.testing.assert_allclose(again[known], flow[known], rtol=0, atol=1 / 128)


def sixteen_bit_png(path: Path):
    """Pixels of a 16-bit RGB PNG by a slow loop over the standard's filters."""
    data = path.read_bytes()
    place, packed, height, width = 8, b"", 0, 0
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (16, 2)
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    raw, stride = zlib.decompress(packed), 6 * width
    rows = [bytes(stride)]
    for row in range(height):
        how, *line = raw[row * (stride + 1) : (row + 1) * (stride + 1)]
        above = rows[-1]
        for i in range(stride):
            a, b = (line[i - 6] if i >= 6 else 0), above[i]
            c = above[i - 6] if i >= 6 else 0
            paeth = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[how]) % 256
        rows.append(bytes(line))
    return np.frombuffer(b"".join(rows[1:]), ">u2").reshape(height, width, 3)


def test_kittis_numbers_stand_in_the_png_as_the_format_says(tmp_path: Path, flow):
    flow[1, 2] = np.inf
    write_flow(tmp_path / "a.png", flow)
    values = sixteen_bit_png(tmp_path / "a.png")
    assert values[1, 2].tolist() == [0, 0, 0]
    assert values[0, 0].tolist() == [*np.rint(flow[0, 0] * 64 + 32768).astype(int), 1]


def test_flow_too_long_for_kitti_is_not_written(tmp_path: Path):
    with pytest.raises(MidwayError, match="600 pixels"):
        write_flow(tmp_path / "a.png", np.full((2, 2, 2), 600.0))


def test_real_kitti_flow_has_its_known_share_and_is_written_back_the_same(
    shared_data: Path, tmp_path: Path
):
    flow = read_flow(shared_data / "flow/kitti/flow/000000_10.png")
    known = is_known(flow)
    assert flow.shape == (375, 1242, 2)
    assert known.mean() == pytest.approx(0.162, abs=0.001)
    lengths = np.hypot(*flow[known].T)
    assert (lengths.mean(), lengths.max()) == pytest.approx((51, 190), abs=1)
    write_flow(tmp_path / "a.png", flow)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.png"), flow)


def test_middleburys_mark_is_written_back_unchanged(shared_data: Path, tmp_path: Path):
    real = shared_data / "flow/middlebury/Dimetrodon/flow10.flo"
    write_flo(tmp_path / "a.flo", read_flo(real))
    assert (tmp_path / "a.flo").read_bytes() == real.read_bytes()


def test_pfm_rows_go_from_below_and_both_byte_orders_are_read(tmp_path: Path):
    pixels = [[1, 2, 0], [3, 4, 0], [5, 6, 0], [7, np.nan, 0]]
    for kind, scale in (("<f4", "-1.0"), (">f4", "1")):
        body = np.array(pixels, kind).tobytes()
        (tmp_path / "a.pfm").write_bytes(f"PF\n2 2\n{scale}\n".encode() + body)
        flow = read_flow(tmp_path / "a.pfm")
        assert flow[1].tolist() == [[1, 2], [3, 4]]
        assert flow[0].tolist() == [[5, 6], [np.inf, np.inf]]
    write_flow(tmp_path / "a.pfm", flow)
    assert (tmp_path / "a.pfm").read_bytes()[-24:-8] == np.array([5, 6, 0, np.nan], "<f4").tobytes()


def test_tartanair_arrays_are_read_as_numpy_wrote_them(tmp_path: Path, flow):
    np.save(tmp_path / "a.npy", flow)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.npy"), flow)
    write_flow(tmp_path / "b.npy", flow)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), flow)


def archive():
    """Return the bytes of `np.savez`, which `np.load` accepts under any name."""
    file = io.BytesIO()
    np.savez(file, flow=np.zeros((4, 4, 2)))
    return file.getvalue()


def write_bytes(data):
    return lambda path: path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pfm", write_bytes(b"Pf\n2 2\n-1\n" + bytes(16)), "header 'PF'"),
        ("a.pfm", write_bytes(b"PF\n2 2\n-1\n" + bytes(47)), "need 58"),
        ("a.pfm", write_bytes(b"PF\n2 2\n..\n" + bytes(48)), "header 'PF'"),
        ("a.npy", lambda path: path.write_bytes(archive()), "not a whole .npy"),
        ("a.png", write_bytes(b"no picture"), "cannot be read as PNG"),
        ("a.png", lambda path: Image.new("RGB", (4, 4)).save(path), "of format rgb24"),
        ("a.npy", write_bytes(b"no array"), "not a whole .npy"),
        ("a.npy", lambda path: np.save(path, np.zeros((4, 4))), "(4, 4)"),
        ("a.npy", lambda path: np.save(path, np.full((4, 4, 2), np.nan)), "not finite"),
        ("a.flo5", write_bytes(b"no HDF5"), "no readable HDF5 dataset"),
        ("a.gif", write_bytes(b""), "suffixes are .flo, .pfm"),
    ],
)
def test_a_bad_file_of_any_format_is_refused_by_name(tmp_path: Path, h5py, name, write, message):
    write(tmp_path / name)
    with pytest.raises(MidwayError) as error:
        read_flow(tmp_path / name)
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".pfm"])
def test_a_truncated_file_is_refused(tmp_path: Path, flow, suffix):
    path = tmp_path / f"a{suffix}"
    write_flow(path, flow)
    for share in (0.3, 0.9):
        data = path.read_bytes()
        (tmp_path / f"b{suffix}").write_bytes(data[: int(share * len(data))])
        with pytest.raises(MidwayError, match=str(tmp_path / "b")):
            read_flow(tmp_path / f"b{suffix}")


def test_nan_is_refused_on_both_ways(tmp_path: Path, flow):
    write_flo(tmp_path / "a.flo", flow)
    data = bytearray((tmp_path / "a.flo").read_bytes())
    data[12:16] = np.float32(np.nan).tobytes()
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(MidwayError, match=r"NaN in flow: .*a.flo at 1 pixels"):
        read_flo(tmp_path / "a.flo")
    flow[0, 0, 1] = np.nan
    for suffix in (".flo", ".pfm", ".png", ".npy"):
        with pytest.raises(MidwayError, match="NaN"):
            write_flow(tmp_path / f"b{suffix}", flow)


def test_unknown_flow_does_not_go_into_an_array_file(tmp_path: Path, flow):
    flow[0, 0] = np.inf
    with pytest.raises(MidwayError, match=r"write .flo or .pfm"):
        write_flow(tmp_path / "a.npy", flow)


def test_kittis_blue_is_0_or_1(tmp_path: Path, flow):
    """OpenCV writes blue first; Virtual KITTI 2 marks valid pixels by 65,535."""
    write_flow(tmp_path / "a.png", flow)
    values = sixteen_bit_png(tmp_path / "a.png")
    valid_65535 = values.copy()
    valid_65535[..., 2] *= 65535
    for wrong in (values[..., ::-1], valid_65535):
        write_png(tmp_path / "b.png", wrong)
        with pytest.raises(MidwayError, match=r"blue of .*b\.png has values up to .*, not 0 or 1"):
            read_flow(tmp_path / "b.png")
    write_png(tmp_path / "b.png", values)
    np.testing.assert_array_equal(read_flow(tmp_path / "b.png"), read_flow(tmp_path / "a.png"))


def write_png(path: Path, values, *, size: tuple[int, int] | None = None):
    """Write a 16-bit RGB PNG; `size` (width, height) belies its header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", *(size or values.shape[1::-1]), 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_flow_beyond_the_limit_is_unknown_in_every_format(tmp_path: Path, flow, h5py):
    for suffix in (".flo", ".pfm", ".flo5"):
        flow[1, 2] = (1e30, 0)
        write_flow(tmp_path / f"a{suffix}", flow)
        again = read_flow(tmp_path / f"a{suffix}")
        assert (again[1, 2] == np.inf).all()
        assert is_known(again).sum() == flow[..., 0].size - 1
    np.save(tmp_path / "a.npy", flow)
    with pytest.raises(MidwayError, match="not finite or above 1e"):
        read_flow(tmp_path / "a.npy")


@pytest.mark.parametrize("scale", ["0", "-0.0", "1e999", "-1e" + "9" * 1000])
def test_a_pfm_whose_scale_has_no_byte_order_is_refused(tmp_path: Path, scale):
    (tmp_path / "a.pfm").write_bytes(f"PF\n1 1\n{scale}\n".encode() + bytes(12))
    with pytest.raises(MidwayError, match=r"a\.pfm has scale"):
        read_flow(tmp_path / "a.pfm")


def test_headers_of_sizes_that_no_file_has_are_refused(tmp_path: Path, flow):
    (tmp_path / "a.pfm").write_bytes(b"PF\n" + b"9" * 5000 + b" 2\n-1\n" + bytes(24))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 2), }"
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text)
    write_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint16), size=(40_000, 40_000))
    for name in ("a.pfm", "a.npy", "a.png"):
        with pytest.raises(MidwayError, match=name) as error:
            read_flow(tmp_path / name)
        assert "\n" not in str(error.value)


def test_without_h5py_the_error_names_the_package_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MidwayError, match=r"pip install 'midway-network\[spring\]'"):
        read_flow(tmp_path / "a.flo5")
