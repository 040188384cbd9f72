"""Farthest and nearest points, written to be read. Every backend gives exactly these answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster.ops.search.clouds import EQUAL, squared_distance


def fps(
    pos: Tensor, sizes: Sequence[int], nums: Sequence[int], start: Tensor | None = None
) -> Tensor:
    """See :func:`pointcluster.ops.fps`."""
    picks, begin, clouds = [], 0, pos.split(list(sizes))
    first = [farthest_from_mean(points) for points in clouds] if start is None else start.tolist()
    for points, num, pick in zip(clouds, nums, first, strict=True):
        nearest = torch.full_like(points[:, 0], torch.inf)  # to the picks so far [n]
        for _ in range(num):
            picks.append(begin + pick)
            nearest = torch.minimum(nearest, squared_distance(points, points[pick]))
            nearest[pick] = -1  # below every distance: never chosen again
            pick = int(nearest.argmax())  # the first of equals
        begin += len(points)
    return torch.tensor(picks, dtype=torch.int64, device=pos.device)


def farthest_from_mean(points: Tensor) -> int:
    """Where farthest point sampling begins in a cloud [n, D]; of as far but for rounding the first.

    Seen from its lowest corner, a cloud far from the origin has a mean with all its digits.
    """
    if not len(points):
        return 0
    points = points - points.amin(dim=0)
    d = squared_distance(points, points.mean(dim=0))
    return int((d >= d.max() * (1 - EQUAL * torch.finfo(d.dtype).eps)).int().argmax())


def knn(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    """See :func:`pointcluster.ops.knn`."""
    rows, begin = [torch.empty(0, k, dtype=torch.int64, device=pos.device)], 0
    slot = torch.arange(k, device=pos.device)
    for points, queries in zip(pos.split(list(sizes)), query.split(list(query_sizes)), strict=True):
        for q in queries:
            by_distance = squared_distance(points, q).sort(stable=True).indices
            near = by_distance[:k]
            rows.append(begin + near[slot % len(near)][None])  # a small cloud repeats its points
        begin += len(points)
    return torch.cat(rows)
