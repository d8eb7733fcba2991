"""Write ``runs.tar.xz``; to be run with version 0.1 of midway (see README.md)."""

import json
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import torch
from midway.data.pairs import PairsConfig
from midway.models.vit import EncoderConfig

from midway.cli import main
from midway.data.synthetic import (
    WorldConfig,
    write_flow_dataset,
    write_segmentation_dataset,
    write_videos,
)
from midway.experiments import synthetic
from midway.experiments.base import train
from midway.models.dynamics import DynamicsConfig
from midway.models.midway import HeadConfig, NetworkConfig
from midway.models.weights import load

WORLD = WorldConfig(height=32, width=32, num_frames=3, fps=2, num_objects=2)
NETWORK = NetworkConfig(
    encoder=EncoderConfig(
        image_size=(16, 16), patch_size=4, width=4, depth=2, heads=2, drop_path=0.0
    ),
    dynamics=DynamicsConfig(
        levels=(1,),
        midway_width=2,
        midway_depth=1,
        midway_heads=1,
        num_latents=2,
        backward_heads=2,
        forward_depth=2,
        forward_heads=2,
    ),
    head=HeadConfig(hidden=8, bottleneck=4, num_prototypes=8),
)
SMALL = ["--run.steps", "2", "--run.checkpoint-every", "1", "--run.keep-checkpoints", "1"]


def write_data() -> None:
    write_videos("videos", replace(WORLD, num_frames=8), seeds=range(2))
    write_flow_dataset("worlds/train", WORLD, seeds=range(2))
    write_flow_dataset("worlds/val", WORLD, seeds=range(2, 3))
    write_segmentation_dataset("labels", WORLD, train_seeds=range(2), val_seeds=range(2, 3))


def pretrain() -> None:
    base = synthetic.midway_tiny()
    views = replace(
        base.method.views,
        motion_size=(16, 16),
        global_size=(16, 16),
        local_size=(8, 8),
        num_local=1,
    )
    train(
        replace(
            base,
            method=replace(synthetic.BOTH_TERMS, network=NETWORK, views=views),
            data=PairsConfig(root="videos", gap_seconds=(0.5, 1.0), batch_size=2, num_workers=0),
            run=replace(
                base.run, folder=Path("midway"), steps=2, checkpoint_every=1, keep_checkpoints=1
            ),
        )
    )


def evaluate() -> None:
    segmentation = ["eval", "segmentation", "--protocol", "synthetic-linear", "--run", "midway"]
    segmentation += ["--data.root", "labels", "--data.crop", "32", "32", "--data.num-workers", "0"]
    segmentation += ["--data.batch-size", "2", "--run.accelerator", "cpu", "--num-pictures", "0"]
    segmentation += ["--optim.warmup-steps", "1", "--run.folder", "readout"]
    assert main([*segmentation, *SMALL]) == 0
    words = ["--readout.no-frozen", "--readout.layer-decay", "0.5", "--weights", "student"]
    words += ["--run.folder", "finetuned_readout", "--encoder-heads", "2"]
    assert main([*segmentation, *SMALL, *words]) == 0
    flow = ["eval", "flow_finetune", "--protocol", "synthetic", "--start.network", "midway"]
    flow += ["--data.root", "worlds", "--data.crop", "16", "16", "--data.batch-size", "2"]
    flow += ["--data.num-workers", "0", "--data.no-augment", "--validation.every-steps", "2"]
    flow += ["--dpt.widths", "2", "2", "2", "2", "--dpt.fused-width", "2", "--dpt.last-width", "2"]
    assert main([*flow, *SMALL, "--run.folder", "flow"]) == 0


def export() -> None:
    assert main(["export", "midway", "network.safetensors"]) == 0
    assert main(["export", "midway", "network.pth"]) == 0


def numbers() -> None:
    """What the files gave then, for the tests to compare with."""
    network = load("midway")
    images = torch.linspace(-1, 1, 3 * 16 * 24).reshape(1, 3, 16, 24)
    with torch.no_grad():
        teacher = network.teacher.encoder.levels(images, (2,))[0]
    readout = json.loads(Path("readout/results.json").read_text())
    told = {
        "teacher_level_2": teacher[0].tolist(),
        "readout_weights_sha256": readout["encoder"]["weights_sha256"],
    }
    Path("numbers.json").write_text(json.dumps(told) + "\n")


def pack(archive: Path) -> None:
    """All but the data, and what names the machine or is drawn for people."""
    left_out = ("environment", "last", "events", "pictures", "confusion")
    with tarfile.open(archive, "w:xz") as packed:
        for path in sorted(Path().glob("**/*")):
            if path.is_file() and not any(part.startswith(left_out) for part in path.parts):
                packed.add(path, filter=_without_owner)


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    if any(Path().iterdir()):
        sys.exit("run this in an empty folder")
    write_data()
    pretrain()
    evaluate()
    export()
    numbers()
    for data in ("videos", "worlds", "labels"):
        shutil.rmtree(data)
    pack(Path(__file__).parent / "runs.tar.xz")
