"""One run on several cards: each process has the whole model, and trains on its part of a batch.

All of them draw the same random numbers and average their gradients, so that their erasers stay the
same, and are that of one process within rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import EraseError
from .states import Batch

JOINING = timedelta(minutes=30)  # for the slowest to open its model, or to write a checkpoint


class Team:
    """Process ``rank`` of ``size``; one that is alone."""

    rank, size = 0, 1

    def part(self, batch: Batch) -> Batch:
        """This process's states of a batch that all have drawn."""
        return batch

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Put the mean of all processes' tensors into each."""

    def fill(self, tensors: Iterable[Tensor]) -> None:
        """Put what one process has written into tensors of zeros into those of all."""


ALONE = Team()


class Group(Team):
    """Process ``rank`` of ``size`` that meet at ``address`` ("tcp://127.0.0.1:1234")."""

    def __init__(self, rank: int, size: int, address: str) -> None:
        self.rank, self.size = rank, size
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _told():
            dist.init_process_group(
                backend, init_method=address, rank=rank, world_size=size, timeout=JOINING
            )

    def part(self, batch: Batch) -> Batch:
        return Batch(*(None if x is None else x[self.rank :: self.size] for x in batch))  # type: ignore[arg-type]

    def mean(self, tensors: Iterable[Tensor]) -> None:
        with _told():
            for tensor in tensors:
                dist.all_reduce(tensor)
                tensor /= self.size

    def fill(self, tensors: Iterable[Tensor]) -> None:
        with _told():
            for tensor in tensors:  # as bytes, whose sum with zeros is exact in any dtype
                dist.all_reduce(tensor.view(torch.uint8))

    def leave(self) -> None:
        dist.destroy_process_group()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise EraseError(
            "Another process of this run is gone, which its own lines may explain; begin again, "
            "or resume."
        ) from error
