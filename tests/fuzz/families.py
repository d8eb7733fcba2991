"""Families of mutants: each is drawn from (seed, family, number) alone, so that it can be repeated.

A family makes one input and names the door that reads it.
"""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from midway.models.weights.layouts.beside import CONFIG, PREPROCESSOR
from tests.fuzz.mutations import (
    mutate,
    mutate_entry,
    mutate_json,
    mutate_lines,
    mutate_safetensors,
    with_checksums,
)
from tests.fuzz.seeds import CLASSES, FLOW_SUFFIXES, PNG_IDS, TRACKS, WEIGHTS

INDEX = "midway-index.jsonl"


class Maker:
    """Maker of mutants from the seed files in `seeds`, written below `scratch`."""

    def __init__(self, seeds: Path, scratch: Path) -> None:
        self.seeds, self.scratch = seeds, scratch

    def make(self, family: str, number: int, seed: int) -> tuple[str, Path]:
        """Write a mutant.

        Returns:
            Name of its door, and its path.
        """
        rng = random.Random(f"{seed} {family} {number}")
        return FAMILIES[family](self, number, rng)

    def write(self, name: str, data: bytes) -> Path:
        """Write an input of this name."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def _sound(paths: list[Path], number: int) -> tuple[Path, bytes]:
    path = paths[number % len(paths)]
    return path, path.read_bytes()


def _video(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound(sorted((maker.seeds / "videos").iterdir()), number)
    path = maker.write(f"{number}_{source.name}", mutate(data, rng))
    return rng.choice(["video", "video", "decoding"]), path


def _image(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound(sorted((maker.seeds / "images").iterdir()), number)
    path = maker.write(f"{number}_{source.name}", _png(mutate(data, rng), source, rng))
    return rng.choice(["picture", "picture", "labelled_picture"]), path


def _ids(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound([maker.seeds / "ids" / name for name in PNG_IDS], number)
    path = maker.write(f"{number}_{source.name}", _png(mutate(data, rng), source, rng))
    return rng.choice(["label", "mask"] if source.name == "label.png" else ["mask"]), path


def _png(data: bytes, source: Path, rng: random.Random) -> bytes:
    return with_checksums(data) if source.suffix == ".png" and rng.random() < 0.6 else data


def _flow(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound([maker.seeds / f"flow{suffix}" for suffix in FLOW_SUFFIXES], number)
    return "flow", maker.write(f"{number}_{source.name}", _png(mutate(data, rng), source, rng))


def _tracks(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound([maker.seeds / name for name in TRACKS], number)
    if source.suffix == ".npz" and rng.random() < 0.6:
        data = mutate_entry(data, rng, zipfile.ZIP_DEFLATED)
    else:
        data = mutate(data, rng)
    return "tracks", maker.write(f"{number}_{source.name}", data)


def _signals(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    data = (maker.seeds / "walk.signals.npz").read_bytes()
    mutated = mutate_entry(data, rng, zipfile.ZIP_STORED) if rng.random() < 0.6 else None
    return "signals", maker.write(f"{number}.signals.npz", mutated or mutate(data, rng))


def _weights(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    doors = [*WEIGHTS.items()]
    name, door = doors[number % len(doors)]
    data = (maker.seeds / name).read_bytes()
    if name.endswith(".safetensors") and rng.random() < 0.5:
        data = mutate_safetensors(data, rng)
    elif not name.endswith(".safetensors") and rng.random() < 0.7:
        data = mutate_entry(data, rng, zipfile.ZIP_STORED)
    else:
        data = mutate(data, rng)
    return door, maker.write(f"{number}/{Path(name).name}", data)


def _beside(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    """Sound weights with the configuration files of transformers or timm beside them."""
    folder = maker.scratch / f"{number}_beside"
    shutil.copytree(maker.seeds / "others", folder)
    changed = folder / rng.choice([CONFIG, CONFIG, PREPROCESSOR])
    changed.write_text(mutate_json(json.loads(changed.read_text()), rng))
    return "others", folder / "model.safetensors"


def _config(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    data = (maker.seeds / "config.json").read_bytes()
    is_json = rng.random() < 0.8
    data = mutate_json(json.loads(data), rng).encode() if is_json else mutate(data, rng)
    return "config", maker.write(f"{number}.json", data)


def _log(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    data = (maker.seeds / "metrics.jsonl").read_bytes()
    return "log", maker.write(f"{number}/metrics.jsonl", _lines(data, rng))


def _results(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    data = (maker.seeds / "results.json").read_bytes()
    is_json = rng.random() < 0.8
    data = mutate_json(json.loads(data), rng).encode() if is_json else mutate(data, rng)
    return "results", maker.write(f"{number}/results.json", data)


def _classes(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    source, data = _sound([maker.seeds / name for name in CLASSES], number)
    is_json = source.suffix == ".json" and rng.random() < 0.7
    data = mutate_json(json.loads(data), rng).encode() if is_json else mutate(data, rng)
    return "class_list", maker.write(f"{number}_{source.name}", data)


def _lines(data: bytes, rng: random.Random) -> bytes:
    return mutate_lines(data, rng) if rng.random() < 0.7 else mutate(data, rng)


def _index(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    """An index elsewhere, whose root is the folder of sound videos."""
    data = (maker.seeds / "clips" / INDEX).read_bytes()
    return "clips", maker.write(f"{number}.jsonl", _lines(data, rng))


def _indexed(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    """An index in the folder of its sound videos."""
    folder = maker.scratch / f"{number}_indexed"
    shutil.copytree(maker.seeds / "clips", folder)
    index = folder / INDEX
    index.write_bytes(_lines(index.read_bytes(), rng))
    return "clips", folder


def _episodes(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    """A table of LeRobot's episodes beside a sound video."""
    folder = maker.scratch / f"{number}_episodes"
    table = folder / "meta/episodes/chunk-000/file-000.parquet"
    video = folder / "videos/observation.image/chunk-000/file-000.mp4"
    for path in (table, video):
        path.parent.mkdir(parents=True)
    shutil.copy(maker.seeds / "clips" / "even.mp4", video)
    table.write_bytes(mutate((maker.seeds / "episodes.parquet").read_bytes(), rng))
    return "clips", folder


def _tar(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    data = (maker.seeds / "shard.tar").read_bytes()
    return "clips", maker.write(f"{number}.tar", mutate(data, rng))


def _list(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    """A list beside its sound videos."""
    folder = maker.scratch / f"{number}_list"
    shutil.copytree(maker.seeds / "clips", folder)
    (folder / "list.csv").write_bytes(mutate((maker.seeds / "list.csv").read_bytes(), rng))
    return "clips", folder / "list.csv"


def _store(maker: Maker, number: int, rng: random.Random) -> tuple[str, Path]:
    folder = maker.scratch / f"{number}.lance"
    shutil.copytree(maker.seeds / "store.lance", folder)
    victim = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if rng.random() < 0.05:
        victim.unlink()
    else:
        victim.write_bytes(mutate(victim.read_bytes(), rng))
    return "store", folder


FAMILIES: dict[str, Callable[[Maker, int, random.Random], tuple[str, Path]]] = {
    "video": _video,
    "image": _image,
    "ids": _ids,
    "flow": _flow,
    "tracks": _tracks,
    "signals": _signals,
    "weights": _weights,
    "beside": _beside,
    "config": _config,
    "log": _log,
    "results": _results,
    "classes": _classes,
    "index": _index,
    "indexed": _indexed,
    "episodes": _episodes,
    "tar": _tar,
    "list": _list,
    "store": _store,
}

SHARES = {
    "video": 0.24,
    "image": 0.13,
    "ids": 0.06,
    "flow": 0.11,
    "tracks": 0.14,
    "signals": 0.03,
    "weights": 0.10,
    "beside": 0.02,
    "config": 0.03,
    "log": 0.02,
    "results": 0.01,
    "classes": 0.01,
    "index": 0.02,
    "indexed": 0.01,
    "episodes": 0.01,
    "tar": 0.01,
    "list": 0.01,
    "store": 0.04,
}
"""Share of each family among all inputs, by the size of the code that parses it."""


def counts(total: int) -> dict[str, int]:
    """Return the number of inputs of each family, at least one, which sum up to about `total`."""
    return {family: max(1, round(total * share)) for family, share in SHARES.items()}
