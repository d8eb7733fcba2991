"""Finding and reading files: no code is run, and what is no network is told in one line."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from midway.config import to_json
from midway.errors import MidwayError
from midway.models.weights.load import load
from midway.models.weights.save import save
from tests.models.networks import random_network, same_weights


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["args", "student"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, key: str) -> None:
    save(random_network(), tmp_path / "net.pth")
    contents = torch.load(tmp_path / "net.pth", weights_only=True)
    contents[key] = {"payload": _Touch(tmp_path / "created")}
    torch.save(contents, tmp_path / "evil.pth")
    with pytest.raises(MidwayError, match=r"evil\.pth: not read, its pickle asks for"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "created").exists()


def test_a_bare_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Touch(tmp_path / "created"), protocol=2))
    with pytest.raises(MidwayError, match=r"evil\.pth"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "created").exists()


def test_a_run_folder_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    old, new = random_network(), random_network()
    (tmp_path / "checkpoints").mkdir()
    method = {"name": "midway", "network": to_json(new.config)}
    (tmp_path / "config.json").write_text(json.dumps({"method": method}))
    for step, network in ((9, old), (10, new)):
        model = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"model": model, "step": step}, tmp_path / f"checkpoints/step_{step:08d}.ckpt")
    (tmp_path / "checkpoints" / "teacher.ckpt").write_bytes(b"of another tool")
    assert same_weights(load(tmp_path), new)
    assert same_weights(load(tmp_path / "checkpoints" / "step_00000009.ckpt"), old)


def _run_folder(folder: Path, config: object, model: dict) -> Path:
    (folder / "checkpoints").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"model": model}, folder / "checkpoints" / "step_00000001.ckpt")
    return folder


@pytest.mark.parametrize("method", [3, {}, {"network": 3}])
def test_a_run_without_a_network_in_its_configuration_is_named(
    tmp_path: Path, method: object
) -> None:
    model = {"network.encoder.cls_token": torch.zeros(1, 1, 24)}
    with pytest.raises(MidwayError, match=r"config\.json: no method\.network"):
        load(_run_folder(tmp_path, {"method": method}, model))


def test_tensors_beside_the_network_of_a_run_are_refused(tmp_path: Path) -> None:
    network = random_network()
    model = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    config = {"method": {"network": to_json(network.config)}}
    folder = _run_folder(tmp_path, config, model | {"probe.weight": torch.zeros(1)})
    with pytest.raises(MidwayError, match=r"step_00000001\.ckpt: .*probe\.weight"):
        load(folder)


@pytest.mark.parametrize("header", ["{", "[3]", '{"encoder": 3}', '{"encoder": {"width": 0}}'])
def test_a_safetensors_header_that_is_no_configuration_is_named(
    tmp_path: Path, header: str
) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "net.safetensors", {"midway": header})
    with pytest.raises(MidwayError, match=r"net\.safetensors: ") as caught:
        load(tmp_path / "net.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["runs/foo.pth", "runs/foo.safetensors", "./run", "a/b/c"])
def test_a_missing_local_file_is_not_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.delattr("midway.models.weights.files.fetch")
    with pytest.raises(MidwayError, match="no such file or folder"):
        load(path)


def test_a_name_too_long_for_the_file_system_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="check the path"):
        load(tmp_path / ("n" * 300))


def test_an_unreadable_file_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    torch.save({}, tmp_path / "net.pth")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(MidwayError, match=r"net\.pth: cannot be read \(Permission denied\)$"):
        load(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pth", b"no checkpoint", r"net\.pth"),
        ("net.pth", b"", r"net\.pth"),
        ("net.safetensors", b"no tensors here", "not a readable safetensors"),
        ("net.ckpt", b"PK\x03\x04 cut", r"net\.ckpt"),
    ],
)
def test_files_that_are_no_checkpoints_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MidwayError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    save(random_network(), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MidwayError, match=r"net\.pth"):
        load(tmp_path / "net.pth")
    assert not zipfile.is_zipfile(tmp_path / "net.pth")


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="no such file or folder"):
        load(tmp_path / "net.pth")
    with pytest.raises(MidwayError, match="no checkpoints"):
        load(tmp_path)
