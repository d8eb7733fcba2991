"""Dummy of NYU Depth v2 as BTS prepared it: the brighter a block of pixels, the farther it is."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_nyu(
    root: Path,
    *,
    size: tuple[int, int] = (48, 64),
    train: int = 4,
    val: int = 2,
    seed: int = 0,
) -> None:
    """Blocks of 16 pixels with depth of 1 to 9 m; the first pixel has none."""
    rng = np.random.default_rng(seed)
    for folder, count in (("sync", train), ("official_splits/test", val)):
        for number in range(count):
            scene = root / folder / f"office_{number % 2:04d}"
            scene.mkdir(parents=True, exist_ok=True)
            blocks = rng.integers(1, 10, (-(-size[0] // 16), -(-size[1] // 16)))
            metres = blocks.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]
            grey = (25 * metres).astype(np.uint8)
            millimetres = (1000 * metres).astype(np.uint16)
            millimetres[0, 0] = 0
            Image.fromarray(grey).convert("RGB").save(scene / f"rgb_{number:05d}.jpg")
            Image.fromarray(millimetres).save(scene / f"sync_depth_{number:05d}.png")
