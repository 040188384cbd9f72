"""Clouds as networks take them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch_geometric.data import Data


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


def maximum(x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
    """The maximum of each cloud's points, by torch alone. [B, C]

    PyG's takes torch-scatter on a GPU where it is installed, and warns where it is not.
    """
    index = batch[:, None].expand_as(x)
    start = x.new_zeros(batch_size, x.size(1))  # what an empty cloud keeps
    return start.scatter_reduce(0, index, x, "amax", include_self=False)
