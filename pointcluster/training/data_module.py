"""The loaders of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import Sampler
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pointcluster.training.run_folder import RunError
from pointcluster.training.samplers import EpochSampler, ShardSampler
from pointcluster.training.seeded_dataset import SeededDataset
from pointcluster.training.survey import Survey, survey


class SeededDataModule(lightning.LightningDataModule):
    """Batches for training, validation and test, the same for any number of workers.

    Args:
        train: Training items.
        val: Validation items, or none.
        test: Test items.
        batch_size: Items a batch and process.
        num_workers: Processes that read and augment; 0 does it in the training process.
        seed: Of the order.
        loader: A class of loaders: PyTorch Geometric's for clouds, torch's for tensors.
        collate: Makes a batch of items, for torch's class; by default as the class does.

    Raises:
        ValueError: ``batch_size`` is out of range.
    """

    def __init__(
        self,
        train: SeededDataset,
        val: SeededDataset,
        test: SeededDataset,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        loader: type[torch.utils.data.DataLoader],
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.train, self.val, self.test = train, val, test
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.loader, self.collate = loader, collate

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        rank, processes = self._share()
        # Of items that do not divide, some are left out of this epoch: none is counted twice.
        sampler = EpochSampler(
            self.train,
            num_replicas=processes,
            rank=rank,
            seed=self.seed,
            drop_last=len(self.train) >= processes,
        )
        # A last batch of few items would weigh as much as a full one: it is left out, and other
        # items fall into it next epoch.
        return self._loader(self.train, sampler, drop_last=len(sampler) >= self.batch_size)

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        return self._loader(self.val, self._every_item_once(self.val))

    def test_dataloader(self) -> torch.utils.data.DataLoader:
        return self._loader(self.test, self._every_item_once(self.test))

    def _every_item_once(self, items: SeededDataset) -> ShardSampler:
        """This process's share of the items."""
        rank, processes = self._share()
        self.check_shares(processes)
        return ShardSampler(len(items), rank, processes)

    def check_shares(self, processes: int) -> None:
        """Check that there is an item to validate and to test for every process.

        Raises:
            RunError: There are fewer: a process without any would leave the others waiting for its
                part of the measures.
        """
        for name, items in (("test", self.test), ("validation", self.val)):
            if 0 < len(items) < processes:
                raise RunError(
                    f"there are {len(items)} {name} items for {processes} processes, expected one "
                    "a process at least: use fewer processes"
                )

    def _share(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(
        self, dataset: SeededDataset, sampler: Sampler, *, drop_last: bool = False
    ) -> torch.utils.data.DataLoader:
        options: dict[str, Any] = {} if self.collate is None else {"collate_fn": self.collate}
        if self.trainer is not None and self.trainer.strategy.root_device.type == "cuda":
            options["pin_memory"] = True
        return self.loader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )


class PointDataModule(SeededDataModule):
    """Batches of clouds for training, validation and test.

    The same seed gives the same batches for any number of workers.

    Args:
        train: Training clouds; items have ``pos`` and ``y``.
        test: Test clouds.
        batch_size: Clouds a batch and process.
        num_workers: Processes that read and augment; 0 does it in the training process.
        seed: Order and augmentation.
        train_transform: Augmentation.
        test_transform: For validation and test.
        collate: Makes a batch of clouds in the process that reads them, such as
            ``PrecomputeHierarchy(model.plans).collate``; PyTorch Geometric's by default.
        val_fraction: Part of every training class that is set aside for validation. Which clouds
            these are does not depend on ``seed``; items with the same ``group`` stay together.

        out: What :func:`hold_out` gave, instead of ``val_fraction``.

    Raises:
        ValueError: ``batch_size`` or ``val_fraction`` is out of range.
        RunError: With ``val_fraction`` no cloud would be held out, or all of a class.
    """

    def __init__(
        self,
        train: Sequence[Data],
        test: Sequence[Data],
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        train_transform: Callable[[Data], Data] | None = None,
        test_transform: Callable[[Data], Data] | None = None,
        collate: Callable[[list[Data]], Batch] | None = None,
        val_fraction: float = 0.0,
        out: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}, expected 0 <= val_fraction < 1")
        kept: list[int] = list(range(len(train)))
        held: list[int] = []
        if out is not None:
            kept, held = (list(each) for each in out)
        elif val_fraction:  # else no item need be read, which may mean a file each
            kept, held = hold_out(train, val_fraction)
        super().__init__(
            SeededDataset(train, items=kept, transform=train_transform, seed=seed),
            SeededDataset(train, items=held, transform=test_transform, seed=seed),
            SeededDataset(test, transform=test_transform, seed=seed),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            loader=loader_of(collate),
            collate=collate,
        )


def loader_of(collate: Callable[..., Any] | None) -> type[torch.utils.data.DataLoader]:
    """A class of loaders of clouds; PyG's makes batches in a way of its own and takes no other."""
    return DataLoader if collate is None else torch.utils.data.DataLoader


def hold_out(train: Sequence[Data] | Survey, fraction: float) -> tuple[list[int], list[int]]:
    """Split training clouds into kept and held, as :func:`carve_out` does.

    Args:
        train: The clouds, or what is known of them; near-identical ones stay on one side.
        fraction: Part of every class to hold.

    Raises:
        RunError: It is above 0 and no cloud would be held, or all clouds of a class.
    """
    if not isinstance(train, Survey):
        train = survey(train) if fraction else Survey([0] * len(train), [*range(len(train))], "")
    labels, groups = train.labels, train.groups
    kept, held = carve_out(labels, groups, fraction)
    what = f"--val-fraction {fraction:g}"
    if fraction and not held:
        raise RunError(
            f"{what} holds none of the {len(labels)} training clouds out: a class has too few (or "
            "too few groups) for that part; give a larger one, or 0"
        )
    if lost := sorted({*labels} - {labels[i] for i in kept}):
        raise RunError(
            f"{what} leaves no training cloud of class {lost[0]}, of {len(lost)} such classes in "
            "all: give a smaller part, or more clouds"
        )
    return kept, held


def carve_out(
    labels: Sequence[int], groups: Sequence[int], fraction: float
) -> tuple[list[int], list[int]]:
    """Split item numbers into kept and held, class by class, always in the same way.

    Args:
        labels: Class of every item.
        groups: Group of every item; a group stays on one side.
        fraction: Part of every class to hold, less what a whole group would put over it.
    """
    held: list[int] = []
    rng = np.random.default_rng(0)
    y, group = np.asarray(labels), np.asarray(groups)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        room = round(fraction * len(members))
        for number in rng.permutation(np.unique(group[members])):
            # items of the group in other classes go with it
            same = np.flatnonzero(group == number)
            if len(same) <= room:
                held += same.tolist()
                room -= len(same)
    return sorted(set(range(len(y))) - set(held)), sorted(set(held))
