"""Batches move their tensors, wherever they are, and leave the rest."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midway.data.sampling.ahead import Batch


@dataclass(frozen=True, kw_only=True)
class Example(Batch):
    image: Tensor
    pair: tuple[Tensor, Tensor]
    signals: dict[str, Tensor]
    names: tuple[str, ...]
    drawn: Any


def test_all_tensors_move_and_the_rest_stays():
    drawn = object()
    batch = Example(
        image=torch.ones(2),
        pair=(torch.ones(3), torch.zeros(1)),
        signals={"action": torch.ones(4)},
        names=("a", "b"),
        drawn=drawn,
    )
    moved = batch.to(torch.device("meta"))
    tensors = (moved.image, *moved.pair, moved.signals["action"])
    assert [(each.device.type, len(each)) for each in tensors] == [
        ("meta", 2),
        ("meta", 3),
        ("meta", 1),
        ("meta", 4),
    ]
    assert (moved.names, moved.drawn) == (("a", "b"), drawn)
    assert batch.image.device.type == "cpu"
