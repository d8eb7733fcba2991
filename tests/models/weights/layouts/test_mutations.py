"""Damaged files in published layouts end in one line, never in another error."""

import copy
import random
from typing import Any

import torch
from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.sources import load_encoder
from tests.models.weights.layouts import published as made
from tests.models.weights.layouts.test_agreement import HINTS, STATES

NUM_FILES = 80
TYPES = (torch.int8, torch.float16, torch.complex64, torch.bool)


def mutated(content: dict[Any, Any], rng: random.Random) -> None:
    """Change one entry of a checkpoint, at any depth, in place."""
    key = rng.choice([*content])
    value = content[key]
    if isinstance(value, dict) and value:
        mutated(value, rng)
        return
    kind = rng.choice(["drop", "rename", "shape", "type", "sparse", "plain"])
    if kind == "drop":
        del content[key]
    elif kind == "rename":
        content[f"{key}{rng.choice(['x', '.weight', '_bias', '.0'])}"] = content.pop(key)
    elif kind == "plain":
        content[key] = rng.choice([3, "text", None, [1]])
    elif kind == "shape":
        content[key] = torch.zeros([rng.randint(0, 30) for _ in range(rng.randint(0, 5))])
    elif isinstance(value, Tensor) and value.ndim:
        content[key] = value.to_sparse() if kind == "sparse" else value.to(rng.choice(TYPES))


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    rng, messages = random.Random(0), list[str]()
    contents = [wrap(made.with_timms_names(made.network(kind))) for kind, wrap in STATES.values()]
    for _ in range(NUM_FILES):
        content = copy.deepcopy(rng.choice(contents))
        for _ in range(rng.randint(1, 3)):
            mutated(content, rng)
        torch.save(content, tmp_path / "net.pth")
        try:
            load_encoder(str(tmp_path / "net.pth"), hints=HINTS)
        except MidwayError as error:
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message]
    assert NUM_FILES / 2 < len(messages) < NUM_FILES
