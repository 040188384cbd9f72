"""The loaders of a training run on pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from pointcluster.training.data_module import SeededDataModule
from pointcluster.training.run_folder import RunError
from pointcluster.training.seeded_dataset import SeededDataset


class ImageDataModule(SeededDataModule):
    """Batches of pictures ``(images [B, C, H, W], classes [B])``.

    The same seed gives the same batches for any number of workers. What is tested is also looked
    at after every epoch; nothing is chosen by it.

    Args:
        train: Training pictures; items are ``(PIL picture, class)``.
        test: Test pictures, likewise; an item ``None`` is left out of its batch, which is ``None``
            itself where nothing is left.
        batch_size: Pictures a batch and process.
        num_workers: Processes that read and augment; 0 does it in the training process.
        seed: Order and augmentation.
        train_transform: From a PIL picture to a tensor, with augmentation.
        test_transform: From a PIL picture to a tensor.

    Raises:
        ValueError: ``batch_size`` is out of range, or the training pictures are an
            ``ImageFolder(on_error="drop")``.
        RunError: When training begins: there are fewer training pictures than a batch takes. When
            a picture is read: the data set refuses it, or the system its file.
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
        held = SeededDataset(Readable(test), transform=OnImage(test_transform), seed=seed)
        super().__init__(
            SeededDataset(Readable(train), transform=OnImage(train_transform), seed=seed),
            held,
            held,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            loader=DataLoader,
            collate=collate_readable,
        )

    def train_dataloader(self) -> DataLoader:
        loader = super().train_dataloader()
        if len(loader.sampler) < self.batch_size:  # type: ignore[arg-type]
            raise RunError(
                f"--batch-size is {self.batch_size}, and a process has only "
                f"{len(loader.sampler)} training images"  # type: ignore[arg-type]
            )
        return loader


def collate_readable(items: Sequence[tuple[Tensor, int] | None]) -> list[Tensor] | None:
    """A batch of the items that are not ``None``; ``None`` where all are.

    Args:
        items: Pictures and their classes.
    """
    kept = [item for item in items if item is not None]
    return default_collate(kept) if kept else None


class Readable(Sequence):
    """A data set whose refusal of a file ends the run with one line.

    Args:
        dataset: Where items come from.
    """

    def __init__(self, dataset: Sequence[tuple[Any, int]]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except (OSError, ValueError) as error:
            raise RunError(error) from error


class OnImage:
    """Applies a transform to the picture of a ``(picture, class)`` pair; ``None`` stays.

    Args:
        transform: From a PIL picture to a tensor.
    """

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __call__(self, item: tuple[Any, int] | None) -> tuple[Tensor, int] | None:
        if item is None:
            return None
        image, label = item
        return self.transform(image), label
