"""Clouds as networks take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pointcluster.geometry.check import check_positive


def check_clouds(data: Data, dim: int, in_channels: int, device: torch.device) -> None:
    """Check that clouds fit a network; the geometry checks the rest.

    Args:
        data: The clouds.
        dim: Axes of the positions.
        in_channels: Channels of the features that come with them.
        device: Where the network is.

    Raises:
        TypeError: They are no PyG Data.
        ValueError: Positions or features are missing, of another shape, or elsewhere.
    """
    if not isinstance(data, Data):
        raise TypeError(f"expected a PyG Data or Batch with pos, found {type(data).__name__}")
    pos = data.pos
    if pos is None or pos.dim() != 2 or pos.size(1) != dim:
        found = None if pos is None else list(pos.shape)
        raise ValueError(f"the network needs pos of shape [N, {dim}], found {found}")
    if pos.device != device:
        raise ValueError(
            f"the clouds are on {pos.device}, the network on {device}: move one of them"
        )
    if not in_channels:
        return
    x = data.x
    if x is None or x.dim() != 2 or x.size(1) != in_channels:
        found = None if x is None else list(x.shape)
        raise ValueError(f"the network needs features x of shape [N, {in_channels}], found {found}")
    if len(x) != len(pos):
        raise ValueError(f"x has {len(x)} points, pos {len(pos)}")


def check_equally_many(**lists: Sequence[Any]) -> None:
    """Check that a network's lists have an entry a stage, and that there are stages.

    Raises:
        ValueError: They differ in length, or are empty.
    """
    lengths = [len(each) for each in lists.values()]
    if len(set(lengths)) > 1 or 0 in lengths:
        *names, last = lists
        raise ValueError(
            f"{', '.join(names)} and {last} must be equally many, found "
            f"{', '.join(map(str, lengths))}"
        )


def check_entries(least: int, **lists: Sequence[int]) -> None:
    """Check that all entries of a network's lists are integers of at least `least`.

    Raises:
        TypeError: One is no integer.
        ValueError: One is smaller.
    """
    for name, values in lists.items():
        for value in values:
            check_positive(f"each entry of {name}", value, least=least)
