"""The data of a training run: loaders that draw alike in any process, at any time.

Random numbers depend on what they are for, a seed, an epoch and an item, not on what was drawn
before: so that a run is the same for any number of workers, and when it is resumed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate
from torch_geometric.data import Batch, Data

from pointcluster.training.run import RunError
from pointcluster.training.splits import hold_out
from pointcluster.transforms import PrecomputeHierarchy

SHARED_MEMORY = ("cpu", "mps")
"""Devices to which nothing is copied aside: there is no memory to pin, or torch advises against."""


def mix(*keys: int) -> int:
    """One well-spread 63-bit seed from several non-negative numbers."""
    high, low = np.random.SeedSequence(keys).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1


@contextmanager
def seeded(*keys: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's CPU generators inside the block, and restores them after.

    Transforms draw from these three: with ``seeded(seed, epoch, index)`` around them, an item is
    changed alike in any worker process, in any order, and after a resume.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = mix(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # not torch.manual_seed, which would touch the generators of GPUs as well
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class SeededDataset(Dataset):
    """Some items of a data set, each transformed under a seed of its own.

    It is read by ``(epoch, index)``, which the samplers of this package give: so the epoch reaches
    worker processes that live on from one epoch to the next.

    Args:
        dataset: Where items come from; an item ``None`` stays what it is.
        items: Which of them, by number; all by default.
        transform: Applied to a copy of an item.
        seed: First part of every item's seed.

    Raises:
        RunError: When an item is read: the data set refuses it, or the system its file.
    """

    def __init__(
        self,
        dataset: Sequence[Any],
        *,
        items: Sequence[int] | None = None,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.items = list(range(len(dataset)) if items is None else items)
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        try:
            item = self.dataset[self.items[index]]
        except (OSError, ValueError) as error:
            raise RunError(error) from error
        if self.transform is None or item is None:
            return item
        with seeded(self.seed, epoch, index):
            return self.transform(item)


class EpochSampler(DistributedSampler):
    """Torch's order by seed and epoch, shared among processes, with the epoch in it."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


class ShardSampler(Sampler):
    """Every item once, shared among processes, in order.

    Torch's sampler repeats items until every process has as many, and an accuracy would count
    those twice.
    """

    def __init__(self, size: int, rank: int = 0, processes: int = 1) -> None:
        self.indices = range(rank, size, processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)


class SeededDataModule(lightning.LightningDataModule):
    """Batches for training, validation and test, the same for any number of workers.

    Args:
        train: Training items.
        val: Validation items, or none.
        test: Test items.
        batch_size: Items a batch and process.
        num_workers: Processes that read and augment; 0 does it in the training process.
        seed: Of the order.
        collate: Makes a batch of items.

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
        collate: Callable[[list[Any]], Any],
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.train, self.val, self.test = train, val, test
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.collate = collate

    def train_dataloader(self) -> DataLoader:
        rank, processes = self._share()
        # Of items that do not divide, some are left out of this epoch: none is counted twice.
        few = len(self.train) < processes
        sampler = EpochSampler(self.train, processes, rank, seed=self.seed, drop_last=not few)
        # A last batch of few items would weigh as much as a full one: it is left out, and other
        # items fall into it next epoch.
        return self._loader(self.train, sampler, drop_last=len(sampler) >= self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val, self._every_item_once(self.val))

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.test, self._every_item_once(self.test))

    def _every_item_once(self, items: SeededDataset) -> ShardSampler:
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
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loader(
        self, dataset: SeededDataset, sampler: Sampler, *, drop_last: bool = False
    ) -> DataLoader:
        device = "cpu" if self.trainer is None else self.trainer.strategy.root_device.type
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=self.collate,
            pin_memory=device not in SHARED_MEMORY,
        )

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Lightning's, which lets the process go on while tensors are copied, for clouds too."""
        if isinstance(batch, Data):
            return batch.to(device, non_blocking=device.type not in SHARED_MEMORY)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class PointDataModule(SeededDataModule):
    """Batches of clouds, as :class:`SeededDataModule` gives them.

    Args:
        train: Training clouds; items have ``pos`` and ``y``.
        test: Test clouds.
        batch_size: Clouds a batch and process.
        num_workers: Processes that read and augment.
        seed: Of the order and the augmentation.
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
        kept, held = out or hold_out(train, val_fraction)
        super().__init__(
            SeededDataset(train, items=kept, transform=train_transform, seed=seed),
            SeededDataset(train, items=held, transform=test_transform, seed=seed),
            SeededDataset(test, transform=test_transform, seed=seed),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            collate=collate or Batch.from_data_list,
        )


def searching_collate(
    model: Any, geometry: str, workers: int
) -> Callable[[list[Data]], Batch] | None:
    """What makes a batch, and works out the geometry for it; ``None`` where the step is to do that.

    Args:
        model: The network, whose ``plans`` say what to search.
        geometry: ``"loader"``, ``"step"``, or ``"auto"``: the loader where it has workers.
        workers: Processes of the loader.

    Raises:
        ValueError: ``geometry`` is unknown.
    """
    if geometry not in ("auto", "loader", "step"):
        raise ValueError(f"geometry is {geometry!r}, expected 'auto', 'loader' or 'step'")
    if geometry == "loader" or (geometry == "auto" and workers > 0):
        return PrecomputeHierarchy(model.plans).collate
    return None


class ImageDataModule(SeededDataModule):
    """Batches of pictures ``(images [B, C, H, W], classes [B])``, as :class:`SeededDataModule`.

    What is tested is also looked at after every epoch; nothing is chosen by it.

    Args:
        train: Training pictures; items are ``(PIL picture, class)``.
        test: Test pictures, likewise; an item ``None`` is left out of its batch, which is ``None``
            itself where nothing is left.
        batch_size: Pictures a batch and process.
        num_workers: Processes that read and augment.
        seed: Of the order and the augmentation.
        train_transform: From a PIL picture to a tensor, with augmentation.
        test_transform: From a PIL picture to a tensor.

    Raises:
        ValueError: ``batch_size`` is out of range, or the training pictures are an
            ``ImageFolder(on_error="drop")``.
        RunError: When training begins: there are fewer training pictures than a batch takes.
    """

    def __init__(
        self,
        train: Sequence[tuple[Any, int]],
        test: Sequence[tuple[Any, int]],
        *,
        train_transform: Callable[[Any], Tensor],
        test_transform: Callable[[Any], Tensor],
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if getattr(train, "on_error", None) == "drop":
            raise ValueError("training takes whole batches: give on_error='skip', not 'drop'")
        augment, plain = partial(_on_image, train_transform), partial(_on_image, test_transform)
        held = SeededDataset(test, transform=plain, seed=seed)
        super().__init__(
            SeededDataset(train, transform=augment, seed=seed),
            held,
            held,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            collate=_collate_readable,
        )

    def train_dataloader(self) -> DataLoader:
        loader = super().train_dataloader()
        if len(loader.sampler) < self.batch_size:  # type: ignore[arg-type]
            raise RunError(
                f"--batch-size is {self.batch_size}, and a process has only "
                f"{len(loader.sampler)} training images"  # type: ignore[arg-type]
            )
        return loader


def _on_image(transform: Callable[[Any], Tensor], item: tuple[Any, int]) -> tuple[Tensor, int]:
    image, label = item
    return transform(image), label


def _collate_readable(items: Sequence[tuple[Tensor, int] | None]) -> list[Tensor] | None:
    """A batch of the items that are not ``None``; ``None`` where all are."""
    kept = [item for item in items if item is not None]
    return default_collate(kept) if kept else None
