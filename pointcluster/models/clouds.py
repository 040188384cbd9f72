"""Clouds as networks take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pointcluster.geometry import AnchorHierarchy, Hierarchy
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.hierarchy import anchors_of


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


def check_hierarchy(
    data: Data,
    hierarchy: Hierarchy | AnchorHierarchy,
    stages: int,
    kind: type[Hierarchy] | type[AnchorHierarchy] = Hierarchy,
) -> None:
    """Check that a hierarchy worked out before can be that of these clouds.

    Args:
        data: The clouds.
        hierarchy: Their geometry.
        stages: How many stages the network has.
        kind: What it takes.

    Raises:
        TypeError: It is no hierarchy.
        ValueError: It is of other clouds, or of a network with another number of stages.
    """
    if not isinstance(hierarchy, kind):
        wanted = "a Hierarchy" if kind is Hierarchy else "an AnchorHierarchy"
        raise TypeError(f"hierarchy must be {wanted}, found {type(hierarchy).__name__}")
    if len(hierarchy.stages) != stages:
        raise ValueError(
            f"the hierarchy has {len(hierarchy.stages)} stages, the network has {stages}"
        )
    first, pos = anchors_of(hierarchy.stages[0]), data.pos
    clouds = 1
    if data.batch is not None:
        given = getattr(data, "num_graphs", None)
        clouds = hierarchy.batch_size if given is None else given
    if (first.num_points, hierarchy.batch_size) != (len(pos), clouds):
        raise ValueError(
            f"the hierarchy is of {first.num_points} points in {hierarchy.batch_size} clouds, "
            f"found {len(pos)} in {clouds}"
        )
    if first.anchor.device != pos.device:
        raise ValueError(
            f"the hierarchy is on {first.anchor.device}, the clouds on {pos.device}: move it by "
            "hierarchy.to(device)"
        )
    if not torch.equal(pos[first.anchor].to(first.pos.dtype), first.pos):
        raise ValueError("the hierarchy was worked out for points at other places, or in another "
                         "order")  # fmt: skip


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
