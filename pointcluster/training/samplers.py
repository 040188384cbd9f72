"""Which items a process reads, as ``(epoch, index)`` pairs."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DistributedSampler, Sampler


class EpochSampler(DistributedSampler):
    """Torch's order by seed and epoch, shared among processes, with the epoch in it."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


class ShardSampler(Sampler):
    """Every item once, shared among processes, in order.

    Torch's sampler repeats items until every process has as many, and an accuracy would count
    those twice.

    Args:
        size: Items in all.
        rank: Number of this process.
        processes: How many processes there are.
    """

    def __init__(self, size: int, rank: int = 0, processes: int = 1) -> None:
        self.indices = range(rank, size, processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)
