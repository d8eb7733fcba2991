"""Run folders and files of version 0.1 open, resume and are scored (tests/written_by_0_1)."""

import json
import tarfile
from pathlib import Path

import pytest
import torch

import midway
from midway.cli import main
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_segmentation_dataset
from midway.models.flow.network import load_flow_network
from midway.models.weights.sources import EncoderSource, open_encoder

WORLD = WorldConfig(height=32, width=32, num_frames=3, fps=2, num_objects=2)
IMAGES = torch.linspace(-1, 1, 3 * 16 * 24).reshape(1, 3, 16, 24)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files, unpacked; paths in them are relative to the current folder."""
    with tarfile.open(Path(__file__).parent / "written_by_0_1" / "runs.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_step(folder: str) -> dict:
    return json.loads((Path(folder) / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("name", ["midway", "network.safetensors", "network.pth"])
def test_networks_and_their_encoders_have_the_features_that_they_had(files, name):
    numbers = json.loads((files / "numbers.json").read_text())
    expected = torch.tensor(numbers["teacher_level_2"])
    hints = {"encoder_heads": 2} if name.endswith(".pth") else {}
    network = midway.load(name, **hints)
    source = EncoderSource(network=name, release=midway.ReleaseHints(**hints))
    opened = open_encoder(source)
    with torch.no_grad():
        for encoder in (network.teacher.encoder, opened.encoder):
            torch.testing.assert_close(encoder.levels(IMAGES, (-1,))[0][0], expected)
    assert opened.weights_sha256 == numbers["readout_weights_sha256"]


@pytest.mark.parametrize("name", ["readout", "finetuned_readout"])
def test_a_readout_goes_on_and_its_network_is_checked_by_the_same_hash(files, name, capsys):
    write_segmentation_dataset("labels", WORLD, train_seeds=range(2), val_seeds=range(2, 3))
    resume = ["eval", "segmentation", "--resume", name, "--run.steps", "4", "--json"]
    assert main(resume) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["steps"] == last_step(name)["step"] == 4
    config = json.loads((files / name / "config.json").read_text())
    assert config["encoder"]["network"] == "midway"
    assert config["encoder"]["release"]["encoder_heads"] == (2 if "finetuned" in name else None)
    # Its new checkpoint describes the encoder, which opens on its own.
    encoder = midway.load_encoder(name)
    assert encoder.config.width == 4
    teacher = midway.load("midway").teacher.encoder.state_dict()
    is_frozen = all(torch.equal(teacher[n], t) for n, t in encoder.state_dict().items())
    assert is_frozen is (name == "readout")
    # Another network in its place is refused.
    assert main(["export", "midway", "other.safetensors"]) == 0
    values = config | {"encoder": config["encoder"] | {"network": "synthetic-tiny"}}
    (files / name / "config.json").write_text(json.dumps(values))
    assert main(resume) == 2
    assert "its weights are not those this readout began with" in capsys.readouterr().err


def test_a_flow_finetuning_opens_goes_on_and_is_scored(files, capsys):
    write_flow_dataset("worlds/train", WORLD, seeds=range(2))
    write_flow_dataset("worlds/val", WORLD, seeds=range(2, 3))
    before = load_flow_network("flow").config
    assert main(["eval", "flow_finetune", "--resume", "flow", "--run.steps", "4", "--json"]) == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["steps"] == last_step("flow")["step"] == 4
    assert load_flow_network("flow").config == before
    score = ["eval", "flow", "--network", "flow", "--dataset", "synthetic", "--data.root"]
    assert main([*score, "worlds/val", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["epe"] == pytest.approx(results["epe"])


def test_info_reads_all_of_them(files, capsys):
    kinds = {}
    for name in ("midway", "network.pth", "readout", "flow", "flow/best.safetensors"):
        assert main(["info", name, "--json"]) == 0
        kinds[name] = json.loads(capsys.readouterr().out.splitlines()[-1])["kind"]
    assert kinds == {
        "midway": "midway network",
        "network.pth": "midway network",
        "readout": "evaluation",
        "flow": "evaluation",
        "flow/best.safetensors": "flow network",
    }


def test_encoders_of_readouts_of_0_1_are_refused_in_one_line(files, capsys):
    assert main(["export", "readout", "encoder.safetensors"]) == 2
    assert "describes no encoder; checkpoints of version 0.1" in capsys.readouterr().err
