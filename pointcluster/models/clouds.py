"""Clouds as networks take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value
from torch_geometric.data import Data

from pointcluster.geometry import Hierarchy
from pointcluster.ops.launch import stop_unless
from pointcluster.ops.search.clouds import common_size


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


def cloud_of(data: Data) -> Tensor:
    """The cloud of each point. [N]"""
    if data.batch is not None:
        return data.batch
    return torch.zeros(len(data.pos), dtype=torch.int64, device=data.pos.device)


def number_of_clouds(data: Data) -> int | None:
    """Number of clouds of a batch; counts empty ones at the end."""
    return data.num_graphs if data.batch is not None and hasattr(data, "num_graphs") else None


def known_sizes(data: Data) -> list[int] | None:
    """Points of each cloud, if the host knows them and the device would have to be asked.

    A batch that PyG put together remembers where its clouds begin, on the host. What it says counts
    unless points were taken out or added since; their values are not looked at then. Points on the
    CPU, which waits for nothing, are checked.
    """
    slices = getattr(data, "_slice_dict", None) or {}
    if data.pos.device.type == "cpu" or "pos" not in slices:
        return None
    bounds = slices["pos"].tolist()
    return [end - begin for begin, end in pairwise(bounds)] if bounds[-1] == len(data.pos) else None


def cloud_hierarchy(build: Callable[..., Hierarchy], data: Data, plans: Sequence[Any]) -> Hierarchy:
    """The geometry that plans say, for clouds.

    A compiler takes it into its graph where clouds are of one size that does not change, and is
    told that they are; else the geometry is worked out beside the graph.

    Args:
        build: `build_hierarchy`, or `planned_anchors`.
        data: The clouds.
        plans: What to build.
    """
    count = number_of_clouds(data)
    if not torch.compiler.is_compiling():
        return build(data.pos, plans, data.batch, batch_size=count, sizes=known_sizes(data))
    if not has_static_value(len(data.pos)):
        return _beside_the_graph(build, data, plans)
    if data.batch is None:
        return build(data.pos, plans, sizes=[len(data.pos)])
    size = _common_size(data.batch, count)
    if not size:
        return _beside_the_graph(build, data, plans)
    clouds = len(data.pos) // size
    same = data.batch == torch.arange(clouds, device=data.pos.device).repeat_interleave(size)
    stop_unless(
        same.all(),
        f"the network was compiled for {clouds} clouds of {size} points and met others: give it "
        "their hierarchy, or leave it uncompiled",
    )
    return build(data.pos, plans, sizes=[size] * clouds)


@torch.compiler.assume_constant_result
def _common_size(batch: Tensor, count: int | None) -> int:
    """Points a cloud where all have as many, else 0; a compiler asks once, of the first batch."""
    sizes = torch.bincount(batch, minlength=count or 0).tolist()
    return common_size(sizes) or 0


@torch.compiler.disable(
    reason="geometry is compiled for clouds of one size that does not change: give a network their "
    "hierarchy, as PrecomputeHierarchy works it out"
)
def _beside_the_graph(
    build: Callable[..., Hierarchy], data: Data, plans: Sequence[Any]
) -> Hierarchy:
    return cloud_hierarchy(build, data, plans)


def maximum(x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
    """The maximum of each cloud's points, by torch alone. [B, C]

    PyG's takes torch-scatter on a GPU where it is installed, and warns where it is not.
    """
    index = batch[:, None].expand_as(x)
    start = x.new_zeros(batch_size, x.size(1))  # what an empty cloud keeps
    return start.scatter_reduce(0, index, x, "amax", include_self=False)
