"""A data set whose augmentation depends on the seed, the epoch and the item alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.utils.data import Dataset
from torch_geometric.data import Data

from pointcluster.training.seeding import seeded


class SeededDataset(Dataset):
    """Some items of a data set, each transformed under a seed of its own.

    It is read by ``(epoch, index)``, which the samplers of this package give: so the epoch reaches
    worker processes that live on from one epoch to the next.

    Args:
        dataset: Where items come from.
        items: Which of them, by number; all by default.
        transform: Applied to a copy of an item.
        seed: First part of every item's seed.
    """

    def __init__(
        self,
        dataset: Sequence[Data],
        *,
        items: Sequence[int] | None = None,
        transform: Callable[[Data], Data] | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.items = list(range(len(dataset)) if items is None else items)
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Data:
        epoch, index = key
        item = self.dataset[self.items[index]]
        if self.transform is None:
            return item
        with seeded(self.seed, epoch, index):
            return self.transform(item)
