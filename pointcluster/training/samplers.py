"""Which items a process reads, as ``(epoch, index)`` pairs."""

from __future__ import annotations

from typing import Iterator

from torch.utils.data import DistributedSampler, Sampler


class EpochSampler(DistributedSampler):
    """Torch's sampler (an order by seed and epoch, shared among processes), giving the epoch too."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


class ShardSampler(Sampler):
    """Every item once, shared among processes, in order.

    Torch's sampler repeats items until every process has as many, and an accuracy would count
    those twice.

    Args:
        size: Items in all.
        rank: Number of this process.
        num_replicas: How many processes there are.
    """

    def __init__(self, size: int, *, rank: int = 0, num_replicas: int = 1) -> None:
        self.indices = range(rank, size, num_replicas)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)
