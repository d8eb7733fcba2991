"""A file in DINO's layout serves every evaluation, with its own colours and without dynamics."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from midway.analysis.tracking import track_points
from midway.cli import main
from midway.data.segmentation.images import SegmentationData
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_videos
from midway.evals.flow_finetune import finetune
from midway.evals.knn_segmentation import evaluate as evaluate_knn
from midway.evals.probes.knn import KnnConfig
from midway.evals.readouts.flow_protocols import StartConfig, synthetic
from midway.methods.base import build_method
from midway.methods.midway import MidwayConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.flow.network import DptConfig, load_flow_network
from midway.models.weights.sources import EncoderSource, load_encoder
from tests.data.segmentation.labelled_folders import write_dummy

ENCODER = EncoderConfig(
    image_size=(32, 32), patch_size=8, width=192, depth=3, heads=3, drop_path=0.0
)
SIZE = (32, 48)
WORLD = WorldConfig(
    height=SIZE[0], width=SIZE[1], num_frames=5, fps=4, num_objects=2, object_speed=12
)


def dino_file(folder: Path) -> Path:
    """A full checkpoint of DINO; student and teacher differ."""
    torch.manual_seed(0)
    student, teacher = (VisionTransformer(ENCODER).state_dict() for _ in range(2))
    head = {"head.mlp.0.weight": torch.ones(2), "head.last_layer.weight_g": torch.ones(2, 1)}
    content = {
        "student": {f"module.backbone.{name}": tensor for name, tensor in student.items()}
        | {f"module.{name}": tensor for name, tensor in head.items()},
        "teacher": {f"backbone.{name}": tensor for name, tensor in teacher.items()} | head,
        "dino_loss": {"center": torch.zeros(1, 8)},
        "epoch": 100,
    }
    torch.save(content, folder / "dino.pth")
    return folder / "dino.pth"


def test_nearest_neighbours_tracks_and_flow_finetuning_take_a_file_of_dino(tmp_path, capsys):
    file = dino_file(tmp_path)
    teacher = load_encoder(str(file))

    write_dummy("camvid", tmp_path / "camvid")
    config = KnnConfig(
        protocol="toy",
        data=SegmentationData(dataset="camvid", root=tmp_path / "camvid"),
        encoder=EncoderSource(network=str(file)),
        precision="32-true",
    )
    assert 0 <= evaluate_knn(config)["miou"] <= 100

    (video,) = write_videos(tmp_path, WORLD, seeds=[0])
    words = ["--point", "20,9", "--network", str(file), "-o", str(tmp_path / "out.mp4"), "--json"]
    assert main(["track", str(video), *words, "--method", "features"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["points"][0]) == 5
    assert main(["track", str(video), *words]) != 0
    assert "no Midway configuration in it" in capsys.readouterr().err

    write_flow_dataset(tmp_path / "train", WORLD, seeds=range(1))
    preset = synthetic()
    flow = replace(
        preset,
        start=StartConfig(
            network=str(file),
            encoder="teacher",
            dynamics=DynamicsConfig(
                levels=(1, 2),
                midway_width=24,
                midway_depth=1,
                num_latents=2,
                forward_depth=1,
                backward_heads=3,
                forward_heads=3,
            ),
        ),
        data=replace(
            preset.data, root=tmp_path, crop=SIZE, augment=False, batch_size=2, num_workers=0
        ),
        validation=replace(preset.validation, parts=preset.data.parts, every_steps=2),
        dpt=DptConfig(widths=(8, 8, 8, 8), fused_width=8, last_width=8),
        run=replace(preset.run, folder=tmp_path / "flow", steps=2, log_every=1),
    )
    assert finetune(flow).steps == 2
    finetuned = load_flow_network(tmp_path / "flow").encoder
    assert not torch.equal(finetuned.norm.weight, teacher.norm.weight)


def test_a_run_starts_from_an_encoder_with_other_colours_and_keeps_its_features(tmp_path):
    torch.manual_seed(0)
    coloured = replace(ENCODER, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    encoder = VisionTransformer(coloured).eval()
    save_file(dict(encoder.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}'
    )
    config = MidwayConfig.tiny()
    network = replace(
        config.network, encoder=ENCODER, dynamics=replace(config.network.dynamics, levels=(1, 2))
    )
    method = build_method(replace(config, network=network))
    method.start_from(str(tmp_path))
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        (expected,) = encoder.maps(images, (-1,))
        for started in method.encoders.values():
            torch.testing.assert_close(
                started.eval().maps(images, (-1,))[0], expected, atol=1e-4, rtol=1e-4
            )
    assert main(["export", str(tmp_path), str(tmp_path / "own.safetensors")]) == 0
    exported = load_encoder(str(tmp_path / "own.safetensors"))
    assert (exported.config.mean, exported.config.std) == (coloured.mean, coloured.std)
    with torch.no_grad():
        torch.testing.assert_close(exported.maps(images, (-1,))[0], expected)


@pytest.mark.parametrize("method", ["features", "flow"])
def test_features_of_an_encoder_alone_follow_a_moving_image(method):
    torch.manual_seed(0)
    encoder = VisionTransformer(replace(ENCODER, depth=1)).eval()
    encoder.pos_embed.data.zero_()
    start = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    # By a whole patch a frame, so that the features move as they are.
    frames = torch.stack([start.roll(8 * number, dims=-1) for number in range(3)])
    tracks = track_points(
        encoder, frames, torch.tensor([[4.0, 12.0]]), torch.tensor([0]), method=method
    )
    expected = torch.tensor([[4.0, 12], [12, 12], [20, 12]])
    torch.testing.assert_close(tracks.points[0], expected, atol=1.0, rtol=0)
