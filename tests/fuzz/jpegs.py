"""Mutated JPEGs that are refused, of those that Pillow reads: `python -m tests.fuzz.jpegs 1500`."""

import io
import random
import sys
from collections import Counter

import numpy as np
from PIL import Image

from midway.data.images import read_image
from midway.errors import MidwayError
from tests.data.video.made_videos import waves
from tests.fuzz.mutations import mutate

KINDS = ({}, {"progressive": True}, {"restart_marker_blocks": 8}, {"subsampling": 0})
VISIBLE = 4.0
"""Mean difference of a visibly damaged picture, in grey levels."""


def made(kind: int) -> bytes:
    """Return a JPEG of waves with noise."""
    noise = np.random.default_rng(kind).integers(-20, 20, (96, 128, 3))
    levels = (waves(kind) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=85, **KINDS[kind])
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray | None:
    """Return what Pillow decodes; None if it notices damage."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.array(image.convert("RGB"), np.int16)
    except Exception:  # Pillow raises many kinds
        return None


def main() -> None:
    found: Counter[tuple[str, str]] = Counter()
    intact = [made(kind) for kind in range(len(KINDS))]
    for number in range(int(sys.argv[1])):
        sound = intact[number % len(KINDS)]
        data = mutate(sound, random.Random(number))
        pixels, expected = decoded(data), decoded(sound)
        if pixels is None or expected is None:
            continue
        is_same = pixels.shape == expected.shape
        error = float(np.abs(pixels - expected).mean()) if is_same else 255.0
        try:
            read_image("mutant", io.BytesIO(data))
            outcome = "read"
        except MidwayError:
            outcome = "refused"
        found["visible" if error > VISIBLE else "slight" if error else "none", outcome] += 1
    for (damage, outcome), count in sorted(found.items()):
        sys.stdout.write(f"damage {damage}, {outcome}: {count}\n")


if __name__ == "__main__":
    main()
