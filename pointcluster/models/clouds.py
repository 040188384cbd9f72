"""Clouds as networks take them."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from pointcluster.geometry import AnchorHierarchy, Hierarchy
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
