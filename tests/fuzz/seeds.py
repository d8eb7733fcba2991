"""Small sound files for every door, from which the mutants are made."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from midway.config import json_text, to_json
from midway.data.clips.store import StoreConfig
from midway.data.flow.files import write_flow
from midway.data.prepare.index import build_index
from midway.data.prepare.pipeline import prepare
from midway.experiments.synthetic import midway_tiny
from midway.models.midway import MidwayNetwork
from midway.models.weights.layouts.beside import CONFIG, PREPROCESSOR
from midway.models.weights.save import save
from midway.train.checkpoint import save_checkpoint
from midway.train.optim import AdamW, OptimConfig
from tests.data.video.made_videos import copy_packets, even_times, waves, write_video
from tests.models.networks import tiny
from tests.train.toy import Toy

FLOW_SUFFIXES = (".flo", ".pfm", ".png", ".npy")
PNG_IDS = ("label.png", "mask.png", "bits.png")
CLASSES = ("colours.txt", "ids.txt", "classes.toml", "vistas.json")
TRACKS = ("dict4.pkl", "list2.pkl", "dict5.pkl", "lists0.pkl", "stored.npz", "deflated.npz")
STEP = 3
WEIGHTS = {
    "network.safetensors": "network",
    "network.pth": "network",
    "encoder.safetensors": "encoder",
    "others.pth": "others",
    "others/model.safetensors": "others",
    f"checkpoints/step_{STEP:08d}.ckpt": "checkpoint",
}
"""Files of weights, and their doors."""
NUM_FRAMES = 16


def write_seeds(folder: Path) -> None:
    """Write all sound files."""
    for write in (_videos, _images, _ids, _flow, _tracks, _signals, _weights, _texts, _clips):
        write(folder)


def _videos(folder: Path) -> None:
    folder = folder / "videos"
    folder.mkdir()

    def write(name: str, codec: str = "libx264", **options: object) -> Path:
        times = even_times(NUM_FRAMES, 10 if codec != "mpeg2video" else 25)
        return write_video(folder / name, times, picture=waves, codec=codec, **options)

    h264 = write("h264.mp4", bf=0)
    write("bframes.mp4", bf=3)
    for suffix in (".mkv", ".ts", ".mov", ".flv"):
        copy_packets(h264, folder / f"h264{suffix}", NUM_FRAMES)
    write("fragments.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    write("hevc.mp4", "libx265")
    write("vp9.webm", "libvpx-vp9")
    write("vp8.webm", "libvpx")
    write("mpeg4.avi", "mpeg4", rate=25, ticks=25)
    write("mpeg2.mpg", "mpeg2video", rate=25, ticks=25)
    write("wmv2.wmv", "wmv2", rate=25, ticks=25)
    if "libsvtav1" in av.codecs_available:
        os.environ.setdefault("SVT_LOG", "1")  # it would print its settings
        write("av1.mkv", "libsvtav1")


def _small_waves(number: int) -> np.ndarray:
    return np.ascontiguousarray(waves(3 * number)[::2, ::2])


def _images(folder: Path) -> None:
    folder = folder / "images"
    folder.mkdir()
    picture = Image.fromarray(_small_waves(0))
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"  # orientation and camera
    picture.save(folder / "rgb.png")
    picture.save(folder / "exif.png", exif=exif)
    picture.save(folder / "rgb.jpg", quality=90, exif=exif)
    picture.save(folder / "progressive.jpg", quality=80, progressive=True)
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png", transparency=3)
    picture.save(folder / "rgb.webp")
    picture.save(folder / "rgb.bmp")
    picture.save(folder / "rgb.ppm")


def _ids(folder: Path) -> None:
    folder = folder / "ids"
    folder.mkdir()
    ids = np.random.default_rng(0).integers(0, 11, (6, 8)).astype(np.uint8)
    ids = ids.repeat(8, 0).repeat(8, 1)
    label, mask, bits = PNG_IDS
    Image.fromarray(ids).save(folder / label)
    palette = Image.fromarray(ids % 4).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, *[0] * 756])
    palette.save(folder / mask)
    Image.fromarray(ids % 2 * 255).convert("1").save(folder / bits)


def _flow(folder: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 5, (12, 16, 2)).astype(np.float32)
    for suffix in FLOW_SUFFIXES:
        write_flow(folder / f"flow{suffix}", flow)


def _tracks(folder: Path) -> None:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 255, (3, 8, 10, 3)).astype(np.uint8)
    points = rng.uniform(0, 1, (4, 3, 2))
    occluded = rng.integers(0, 2, (4, 3)).astype(bool)
    arrays = {"video": video, "points": points, "occluded": occluded}
    pictures = [io.BytesIO() for _ in video]
    for frame, file in zip(video, pictures, strict=True):
        Image.fromarray(frame).save(file, "JPEG")
    jpegs = {**arrays, "video": [file.getvalue() for file in pictures]}
    lists = {**arrays, "points": points.tolist(), "occluded": occluded.tolist()}
    contents = [
        ({"a": arrays, "b": jpegs}, 4),
        ([arrays], 2),
        ({"a": arrays}, 5),
        ({"a": lists}, 0),
    ]
    for name, (content, protocol) in zip(TRACKS, contents, strict=False):
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "deflated.npz", **arrays)


def _signals(folder: Path) -> None:
    seconds = np.arange(8) / 4
    np.savez(folder / "walk.signals.npz", seconds=seconds, action=np.ones((8, 2), np.float32))


def _weights(folder: Path) -> None:
    torch.manual_seed(0)
    network = MidwayNetwork(tiny())
    save(network, folder / "network.safetensors")
    save(network, folder / "network.pth")
    save(network.encoder, folder / "encoder.safetensors")
    state = network.encoder.state_dict()
    torch.save(
        {"teacher": {f"module.backbone.{name}": state[name] for name in state}},
        folder / "others.pth",
    )
    (folder / "others").mkdir()
    save_file(state, folder / "others" / "model.safetensors")
    config = {"num_attention_heads": 2, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    for name, values in ((CONFIG, config), (PREPROCESSOR, colours)):
        (folder / "others" / name).write_text(json.dumps(values))
    toy, scaler = Toy(), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = AdamW(toy, toy.parameter_groups(), OptimConfig())
    save_checkpoint(folder, step=STEP, objective=toy, optimizer=optimizer, scaler=scaler, keep=1)


def _texts(folder: Path) -> None:
    (folder / "config.json").write_text(json_text(to_json(midway_tiny()), indent=2))
    records = [{"step": n, "epoch": n / 10, "loss": 1 / n, "seconds": 0.1 * n} for n in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    _results(folder)
    (folder / "colours.txt").write_text("road,128,64,128\ncar,0,0,142\nignored,0,0,0\n")
    (folder / "ids.txt").write_text("road,7\ncar,26\nignored,11\n")
    (folder / "classes.toml").write_text(
        'offset = 1\nclasses = ["road", "car"]\nignored = [0]\ncolours.road = [128, 64, 128]\n'
        'colours.car = [0, 0, 142]\nimages = "i/{split}/*.jpg"\nmasks = "m/{split}/*.png"\n'
    )
    labels = [
        {"name": name, "readable": name, "evaluate": name != "void", "color": [number, 0, 9]}
        for number, name in enumerate(("road", "car", "void"))
    ]
    (folder / "vistas.json").write_text(json.dumps({"labels": labels}))


def _results(folder: Path) -> None:
    results = {
        "protocol": {"name": "camvid-linear", "version": "1"},
        "encoder": {"network": "run", "weights": "teacher", "features": "encoder"},
        "miou": 30.0,
        "epe": 4.5,
        "renderings": {"clean": 4.0, "final": 5.0},
        "tests": {"things test": {"epe": 7.0}},
        "tracked": {"delta": 40.0},
        "levels": {"3": {"epe": 5.0}},
    }
    (folder / "results.json").write_text(json.dumps(results))


def _clips(folder: Path) -> None:
    clips = folder / "clips"
    clips.mkdir()
    write_video(clips / "even.mp4", even_times(NUM_FRAMES), picture=_small_waves)
    uneven = [0.0, 0.1, 0.4, 0.5, 0.6, 1.3, 1.4, 1.5]
    write_video(clips / "uneven.mp4", uneven, picture=_small_waves)
    build_index(str(clips), num_workers=0, timeout_seconds=60)
    prepare(str(clips), str(folder / "store.lance"), StoreConfig(short_side=32), jobs=0)
    _episodes(folder)
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for name in ("even.mp4", "uneven.mp4"):
            tar.add(clips / name, f"a/{name}")
    (folder / "list.csv").write_text("even.mp4,walk,0.1,1.0\neven.mp4 0 0.1 0.5\nuneven.mp4\n")


def _episodes(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    camera = "videos/observation.image"
    columns = {
        "episode_index": [0, 1],
        f"{camera}/chunk_index": [0, 0],
        f"{camera}/file_index": [0, 0],
        f"{camera}/from_timestamp": [0.0, 0.7],
        f"{camera}/to_timestamp": [0.7, 1.6],
    }
    pq.write_table(pa.table(columns), folder / "episodes.parquet")
