"""Files with random damage end in a network or in one line, never in another exception."""

import random
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.weights.release import ReleaseHints
from midway.models.weights.save import save
from midway.models.weights.sources import load_encoder
from tests.models.networks import ENCODER

MUTANTS = 60


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat or insert bytes, more often in the first and last two kilobytes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 2, 8))):
        at = draw.choice(
            (draw.randrange(len(changed)), draw.randrange(2000), -draw.randrange(2000))
        )
        at %= len(changed)
        kind = draw.choice(("flip", "set", "cut", "repeat", "number"))
        if kind == "flip":
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "set":
            changed[at] = draw.choice((0, 255, ord("."), ord("R"), ord("\x85")))
        elif kind == "cut":
            del changed[at : at + draw.choice((1, 100, len(changed) // 3))]
        elif kind == "repeat":
            changed[at:at] = changed[at : at + 64] * draw.choice((1, 50))
        else:
            changed[at : at + 4] = draw.randbytes(4)
        if len(changed) < 2001:
            break
    return bytes(changed)


@pytest.mark.parametrize("kind", ["own.safetensors", "zip.pth", "legacy.pth"])
def test_random_damage_ends_in_one_line(tmp_path: Path, kind: str) -> None:
    vit, path = VisionTransformer(ENCODER), tmp_path / kind
    if kind == "own.safetensors":
        save(vit, path)
    else:
        torch.save({"model": vit.state_dict()}, path, _use_new_zipfile_serialization="zip" in kind)
    sound, refused = path.read_bytes(), 0
    for seed in range(MUTANTS):
        path.write_bytes(mutated(sound, random.Random(seed)))
        try:
            load_encoder(str(path), hints=ReleaseHints(encoder_heads=2))
        except MidwayError as error:
            refused += 1
            message = str(error)
            assert message.isprintable(), (seed, message)
            assert len(message) < 1000, (seed, message)
    assert refused > MUTANTS // 4
