"""What data sets of clouds with one number of points have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset


class CloudDataset(InMemoryDataset):
    """Clouds in memory, each with as many points.

    Attributes:
        classes: Names of the classes, in the order of their indices.
        split: Which part of the data set this is.
        num_points: Points a cloud.
    """

    classes: list[str]
    split: str
    num_points: int

    def keep(self, y: Tensor, **points: Tensor) -> None:
        """Take over arrays, without copying them.

        Args:
            y: Class of each cloud, ``[n]``.
            points: Values of the points by their names, each ``[n, num_points, ...]``.
        """
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

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __getstate__(self) -> dict[str, Any]:
        # Items that were read are kept as views, and pickle would write all points for each view.
        return {**self.__dict__, "_data_list": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)}, split={self.split!r})"


def check_size(what: str, split: str, found: int, low: int, high: int) -> None:
    """Compare the number of clouds with what the benchmark has.

    Args:
        what: The file or folder, for the message.
        split: The split, for the message.
        found: Clouds that were read.
        low: The least there must be.
        high: The most; the same where the number is known.

    Raises:
        ValueError: There are more or fewer.
    """
    if not low <= found <= high:
        expected = f"not {low:,}" if low == high else f"expected {low:,} to {high:,}"
        raise ValueError(f"{what}: the {split} split has {found:,} clouds, {expected}")
