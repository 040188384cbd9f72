"""Which anchors a point's features are carried back from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.ops.search.clouds import cloud_index, on_device, take


class CarryGeometry(NamedTuple):
    """Where the features of N points come from, when a stage's M anchors are carried back."""

    index: Tensor  # type: ignore[assignment]
    """The anchors nearest to every point, nearest first. [N, k]"""
    weight: Tensor
    """What each of them counts: the inverse of its squared distance, all of a point 1. [N, k]"""


def carry_geometry(
    pos: Tensor, anchors: Tensor, k: int, sizes: Sequence[int], counts: Sequence[int]
) -> CarryGeometry:
    r"""Find the `k` nearest anchors of every point, and weigh them by inverse distance.

    $$ w_{nj} = \frac{1 / d_{nj}^2}{\sum_i 1 / d_{ni}^2} $$

    as in "PointNet++", Qi et al., NeurIPS 2017. A point that lies on an anchor takes that one
    alone. A cloud with fewer anchors than `k` repeats them, and a repeated one counts nothing.

    Args:
        pos: Positions of the points.
        anchors: Positions of the anchors.
        k: How many anchors a point is carried from.
        sizes: Points of each cloud.
        counts: Anchors of each cloud.

    Shapes:
        - **pos:** $(N, D)$, **anchors:** $(M, D)$
    """
    index = ops.knn(anchors, pos, k, counts, sizes)
    square = (take(anchors, index) - pos[:, None]).square().sum(dim=2)
    # Relative to the nearest: no distance is too small or too large for the numbers' range.
    nearest = square[:, :1]
    weight = torch.where(square > 0, nearest / square, 1.0)
    weight = torch.where((nearest == 0) & (square > 0), 0.0, weight)
    if min(counts, default=k) < k:
        there = on_device(counts, pos.device)[cloud_index(sizes, pos.device)]
        weight = weight.masked_fill(torch.arange(k, device=pos.device) >= there[:, None], 0.0)
    return CarryGeometry(index, weight / weight.sum(dim=1, keepdim=True))
