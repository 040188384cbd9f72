"""Farthest and nearest points in torch's operations, all clouds at once: for any device, and no
value is waited for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster.ops.search.clouds import (
    alike,
    of_like_size,
    on_device,
    padded_rows,
    smallest,
    squared_distance,
    take,
)

CHUNK, CHUNK_OF_CPU = 1 << 23, 1 << 18
"""How many distances are held at a time: enough to be worth the calls, and on a CPU few enough for
a cache."""


def fps(pos: Tensor, sizes: Sequence[int], nums: Sequence[int], start: Tensor) -> Tensor:
    """See :func:`pointcluster.ops.fps`."""
    picks = [torch.empty(0, dtype=torch.int64, device=pos.device)] * len(sizes)
    for clouds in of_like_size(sizes, nums):
        rows, count = padded_rows(sizes, clouds, pos.device)  # [S, W]
        whole = len(clouds) == len(sizes)
        first = start if whole else start[on_device(clouds, pos.device)]
        of_row = _rows(take(pos, rows), count, first, max(nums[c] for c in clouds))
        found = rows.gather(1, of_row)
        if whole and alike(nums):
            return found.view(-1)
        for row, c in enumerate(clouds):
            picks[c] = found[row, : nums[c]]
    return torch.cat(picks) if picks else torch.empty(0, dtype=torch.int64, device=pos.device)


def _rows(points: Tensor, count: Tensor, first: Tensor, num: int) -> Tensor:
    """The picks among rows of points [S, W, D], of which `count` [S] are true ones. [S, num]

    Where a row has fewer points than `num`, what follows them means nothing.
    """
    # The same [S, W, D], but in memory axis by axis: the loop reads whole axes.
    points = points.movedim(2, 0).contiguous().movedim(0, 2)
    pad = torch.arange(points.size(1), device=points.device) >= count[:, None]
    nearest = torch.full_like(points[..., 0], torch.inf).masked_fill_(pad, -1)
    pick = first[:, None]
    picks = [pick]
    for _ in range(num - 1):
        chosen = points.gather(1, pick[..., None].expand(-1, -1, points.size(2)))
        nearest = torch.minimum(nearest, squared_distance(points, chosen))
        nearest.scatter_(1, pick, -1)  # below every distance: never chosen again
        pick = nearest.max(dim=1, keepdim=True).indices  # the first of equals
        picks.append(pick)
    return torch.cat(picks, dim=1)


def knn(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    """See :func:`pointcluster.ops.knn`."""
    out = torch.empty(len(query), k, dtype=torch.int64, device=pos.device)
    chunk = CHUNK_OF_CPU if pos.device.type == "cpu" else CHUNK
    slot = torch.arange(k, device=pos.device)
    for clouds in of_like_size(sizes, query_sizes):
        rows, count = padded_rows(sizes, clouds, pos.device)  # [S, W]
        asked, _ = padded_rows(query_sizes, clouds, pos.device)  # [S, V]
        wide, least = rows.size(1), min(sizes[c] for c in clouds)
        step = max(1, chunk // (wide * asked.size(1)))
        for row, n, queries in zip(
            rows.split(step), count[:, None, None].split(step), asked.split(step), strict=True
        ):
            points = take(pos, row)[:, None]  # [s, 1, W, D]
            for part in queries.split(max(1, chunk // wide), dim=1):
                d = squared_distance(take(query, part)[:, :, None], points)  # [s, v, W]
                if least < wide:
                    d.masked_fill_(torch.arange(wide, device=pos.device) >= n, torch.inf)
                near = smallest(d.flatten(0, 1), min(k, wide)).view(*part.shape, -1)  # [s, v, k]
                if least < k:  # a small cloud repeats its points
                    near = near.gather(2, (slot % n.clamp(max=k)).expand(*part.shape, k))
                found = row.gather(1, near.flatten(1))
                out[part.flatten()] = found.view(-1, k)  # a padded query writes what is there
    return out
