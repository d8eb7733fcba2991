"""Items of a torch dataset, read by a few processes: labelled images, pairs with true flow."""

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from midway.errors import MidwayError


def load_items(dataset: Dataset, *, num_workers: int, **options: Any) -> Iterator[Any]:
    """What torch's loader gives, with errors of one line, page-locked if there is a GPU.

    Args:
        dataset: Gives a `MidwayError` as a value: a loader would wrap one raised in a worker.
        num_workers: Reading processes; 0 reads in this one.
        options: Of `DataLoader`: sampler, collation.

    Raises:
        MidwayError: The dataset gave it.
    """
    loader = DataLoader(
        dataset,
        num_workers=num_workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        # Without its own, the loader takes a number from the global generator, and a resumed run
        # would go on with others than one that was never stopped.
        generator=torch.Generator(),
        **options,
    )
    for item in loader:
        if isinstance(item, MidwayError):
            raise item
        yield item


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # A signal to the whole group is for the training process to answer: it still needs batches.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
