"""What data sets of clouds with one number of points have in common."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pointcluster.files import replacing


class LabelledClouds(InMemoryDataset):
    """Clouds in memory.

    Attributes:
        classes: Names of the classes, in the order of their indices.
        split: Which part of the data set this is.
    """

    classes: list[str]
    split: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __getstate__(self) -> dict[str, Any]:
        # Items that were read are kept as views, and pickle would write all points for each view.
        return {**self.__dict__, "_data_list": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, split={self.split!r})"


class CloudDataset(LabelledClouds):
    """A benchmark's clouds in memory, each with as many points.

    Args:
        split: ``"train"`` or ``"test"``.
        transform: Applied to every item when it is read.
        sizes: Clouds that the two splits must have: ``"published"`` as the benchmark has, or two
            numbers; ``None`` takes them as they are.

    Attributes:
        num_points: Points a cloud.

    Raises:
        ValueError: An argument is none of these.
    """

    num_points: int

    def __init__(
        self,
        split: str,
        transform: Callable[[Data], Data] | None,
        sizes: tuple[int, int] | str | None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        if sizes is not None and not isinstance(sizes, tuple) and sizes != "published":
            raise ValueError(f"sizes is {sizes!r}, expected 'published', two numbers or None")
        super().__init__(None, transform)
        self.split, self.sizes = split, sizes

    def keep(self, source: Path, y: Tensor, published: tuple[int, int], **points: Tensor) -> None:
        """Take over arrays, without copying them.

        Args:
            source: The file or folder, for the message.
            y: Class of each cloud, ``[n]``.
            published: The fewest and the most clouds that the split has.
            points: Values of the points by their names, each ``[n, num_points, ...]``.

        Raises:
            ValueError: There are more or fewer clouds than ``sizes`` says.
        """
        low, high = published
        if isinstance(self.sizes, tuple):
            low = high = self.sizes[self.split == "test"]
        if self.sizes is not None and not low <= len(y) <= high:
            expected = f"not {low:,}" if low == high else f"expected {low:,} to {high:,}"
            raise ValueError(f"{source}: the {self.split} split has {len(y):,} clouds, {expected}")
        self.num_points = points["pos"].size(1)
        ends = torch.arange(len(y) + 1)
        self._data = Data(y=y, **{key: value.flatten(0, 1) for key, value in points.items()})
        self.slices = {"y": ends, **dict.fromkeys(points, ends * self.num_points)}

    @property
    def name(self) -> str:
        """What stands before a result: the data set, and which of its forms this is."""
        return type(self).__name__

    def describe(self) -> str:
        """The name and the number of points, as a printed result has them."""
        return f"{self.name}, {self.num_points:,} points"


def fingerprint(files: Iterable[Path], *settings: Any) -> str:
    """A digest that changes with the order, names, sizes and times of files, and with settings."""
    sha256 = hashlib.sha256(repr(settings).encode())
    for file in files:
        state = file.stat()
        sha256.update(f"{file.name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return sha256.hexdigest()


def cached(
    path: Path, key: str, make: Callable[[], dict[str, Tensor]], *, first: int | None = None
) -> dict[str, Tensor]:
    """Tensors from a file of an earlier run, if it has the same key; else made and kept there.

    The file is in safetensors' form, which holds no code, and is written beside the old one and
    renamed. A file that is damaged or has another key is made anew; where the folder cannot be
    written there is a warning, and the same answer.

    Args:
        path: The file.
        key: What the tensors were made from: :func:`fingerprint`.
        make: Makes them.
        first: Give only so many points of each cloud, of ``[n, points, ...]``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("key") == key:
                return {name: _cut(file.get_tensor(name), first) for name in file.keys()}
    except (OSError, SafetensorError):  # not there yet, or damaged
        pass
    tensors = make()
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"key": key})
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"{path} cannot be written, the files will be read again next time: {error}",
            stacklevel=2,
        )
    return {name: _cut(tensor, first) for name, tensor in tensors.items()}


def _cut(values: Tensor, first: int | None) -> Tensor:
    if first is None or values.dim() < 2 or first >= values.size(1):
        return values
    return values[:, :first].clone()
