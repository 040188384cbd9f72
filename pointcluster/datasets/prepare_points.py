"""From a scan of any size to a cloud as networks here are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.geometry import voxel_anchors
from pointcluster.geometry.fps import one_a_voxel

FEATURES = ("normal", "color")
"""What a network can take beside positions."""
FIELDS = (*FEATURES, "label")
"""What a scan may have of each point."""


def reduce_points(
    data: Data,
    num_points: int,
    *,
    voxel_size: float | None = None,
    seed: int | Sequence[int] = 0,
) -> Data:
    """Keep at most some points of a scan, spread evenly in space, in random order.

    First one point a voxel where a size is given, then, of what is still more than asked for, one
    point in each voxel of a grid so fine that about a tenth too many are left, and of these some at
    random. A scan with fewer points keeps all. The first n points are an even sample, too.

    Args:
        data: From :func:`read_points`; it stays as it is.
        num_points: Most points to keep.
        voxel_size: Edge of a voxel, in the file's unit.
        seed: What is at random.

    Shapes and units:
        ``pos``, ``normal`` and ``color`` become ``[n, 3]``, ``label`` ``[n]``.

    Raises:
        ValueError: ``num_points`` or ``voxel_size`` is not positive.
    """
    if num_points < 1:
        raise ValueError(f"num_points is {num_points}, expected at least 1")
    rng = np.random.default_rng(seed)
    kept = torch.arange(data.pos.size(0))
    pos = data.pos.double()  # seen from a stray point far away, float32 would move all others
    if voxel_size is not None:
        kept = one_a_voxel(pos, voxel_size)
    if len(kept) > num_points:
        even = kept[voxel_anchors(pos[kept], min(len(kept), -(-11 * num_points // 10)))]
        chosen = _shuffled(even, rng)[:num_points]
        if missing := num_points - len(chosen):  # coincident points, or a coarse grid
            others = kept[~torch.isin(kept, chosen)]
            chosen = torch.cat([chosen, _shuffled(others, rng)[:missing]])
        kept = chosen
    kept = _shuffled(kept, rng)
    out = Data(pos=data.pos[kept], origin=data.origin)
    for field in FIELDS:
        if data.get(field) is not None:
            out[field] = data[field][kept]
    return out


def to_unit_sphere(data: Data) -> Data:
    """Move the points' mean to the origin and the farthest point to distance 1, as ModelNet40's.

    Coincident points, of which there may be one, all come to lie at the origin.

    Shapes and units:
        Positions in the file are ``pos * scale + origin``; ``scale`` is a float.
    """
    out = data.clone()
    pos = data.pos.double()
    mean = pos.mean(dim=0)
    pos = pos - mean
    scale = float(torch.linalg.vector_norm(pos, dim=1).max())
    out.pos = (pos / (scale or 1.0)).float()
    out.scale = scale or 1.0
    out.origin = tuple(a + b for a, b in zip(data.origin, mean.tolist(), strict=True))
    return out


def _shuffled(index: Tensor, rng: np.random.Generator) -> Tensor:
    return index[torch.from_numpy(rng.permutation(len(index)))]
