"""Stopping between two steps when the system or the user asks for it."""

import signal
from types import FrameType, TracebackType
from typing import Self

import torch
import torch.distributed


class Interruption:
    """Turns SIGTERM and the first SIGINT into a flag that all ranks agree upon.

    A signal may reach some ranks only, and they must all leave the loop after the same step. The
    flags meet by a reduction between the hosts (gloo), which does not wait for the devices. A
    second SIGINT stops at once.
    """

    def __init__(self) -> None:
        self._noted = False
        self._group = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self._group = torch.distributed.new_group(backend="gloo")

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether any rank has been asked to stop; every rank has to ask after every step."""
        if self._group is None:
            return self._noted
        flag = torch.tensor(int(self._noted))
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        return bool(flag)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
