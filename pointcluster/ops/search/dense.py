"""Farthest and nearest points in torch's operations, all clouds at once: for any device, and no
value is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pointcluster.ops.search.clouds import (
    EQUAL,
    alike,
    of_like_size,
    on_device,
    on_host,
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


def farthest_from_mean(pos: Tensor, sizes: Sequence[int]) -> Tensor:
    """The point of each cloud that is farthest from the cloud's mean, counted inside it. [B]

    Symmetric clouds have several such points, and rounding of the mean must not choose: of points
    as far but for rounding the first is taken.
    """
    first = torch.zeros(len(sizes), dtype=torch.int64, device=pos.device)
    for clouds in of_like_size(sizes):
        rows, count = padded_rows(sizes, clouds, pos.device)
        points = take(pos, rows)
        # Seen from its lowest corner, a cloud far from the origin has a mean with all its digits.
        points -= points.amin(dim=1, keepdim=True)
        whole = min(sizes[c] for c in clouds) == rows.size(1)  # nothing is padded
        pad = None if whole else torch.arange(rows.size(1), device=pos.device) >= count[:, None]
        real = points if pad is None else points.masked_fill(pad[..., None], 0)
        d = squared_distance(points, (real.sum(dim=1) / count[:, None])[:, None])
        d = d if pad is None else d.masked_fill_(pad, -1)
        near = d.amax(dim=1, keepdim=True) * (1 - EQUAL * torch.finfo(d.dtype).eps)
        found = (d >= near).int().argmax(dim=1)
        if len(clouds) == len(sizes):
            return found
        first[on_device(clouds, pos.device)] = found
    return first


def _rows(points: Tensor, count: Tensor, first: Tensor, num: int) -> Tensor:
    """The picks among rows of points [S, W, D], of which `count` [S] are true ones. [S, num]

    Where a row has fewer points than `num`, what follows them means nothing.
    """
    if on_host(points):
        return torch.from_numpy(_rows_numpy(points.numpy(), count.numpy(), first.numpy(), num))
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


def _rows_numpy(points: np.ndarray, count: np.ndarray, first: np.ndarray, num: int) -> np.ndarray:
    """The same on a CPU: on so little data, NumPy's calls cost a fifth of torch's."""
    rows, width, dim = points.shape
    axes = np.ascontiguousarray(np.moveaxis(points, 2, 0))  # [D, S, W]
    flat, start = axes.reshape(dim, -1), np.arange(rows) * width
    nearest = np.full((rows, width), np.inf, points.dtype)
    nearest[np.arange(width) >= count[:, None]] = -1
    distance, term = np.empty((2, rows, width), points.dtype)
    picks = np.empty((num, rows), np.int64)
    picks[0] = first
    for before, pick in pairwise(picks):
        chosen = before + start
        anchor = flat.take(chosen, axis=1)[:, :, None]
        np.square(np.subtract(axes[0], anchor[0], out=distance), out=distance)
        for axis in range(1, dim):
            np.square(np.subtract(axes[axis], anchor[axis], out=term), out=term)
            np.add(distance, term, out=distance)
        np.minimum(nearest, distance, out=nearest)
        nearest.reshape(-1)[chosen] = -1
        nearest.argmax(axis=1, out=pick)
    return np.ascontiguousarray(picks.T)


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
