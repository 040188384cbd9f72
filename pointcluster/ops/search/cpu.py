"""Farthest and nearest points on the CPU: from tensors to the compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pointcluster.ops.search.clouds import starts_of
from pointcluster.ops.search.threads import in_parts


def fps(pos: Tensor, sizes: Sequence[int], nums: Sequence[int], start: Tensor) -> Tensor:
    """See :func:`pointcluster.ops.fps`."""
    from pointcluster.ops.search.cpu_kernels import farthest

    axes, first = np.ascontiguousarray(pos.numpy().T), start.numpy()
    starts, pick_starts = np.array(starts_of(sizes)), np.array(starts_of(nums))
    if ((first < 0) | (first >= starts[1:] - starts[:-1]))[
        pick_starts[1:] > pick_starts[:-1]
    ].any():
        raise ValueError("starts must lie inside their clouds")  # memory beyond would be written
    out = np.empty(pick_starts[-1], np.int64)
    whole = np.empty(0, f"i{axes.itemsize}")

    def some(begin: int, end: int) -> None:
        farthest(axes, starts, first, pick_starts, begin, end, out, whole)

    in_parts(some, len(sizes), sum(n * m for n, m in zip(sizes, nums, strict=True)))
    return torch.from_numpy(out)


def knn(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    """See :func:`pointcluster.ops.knn`."""
    out = np.empty((len(query), k), np.int64)
    some = nearest_loops(pos, query, k, sizes, query_sizes, out)
    in_parts(some, len(query), sum(n * m for n, m in zip(sizes, query_sizes, strict=True)))
    return torch.from_numpy(out)


def nearest_loops(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    out: np.ndarray,
) -> Callable[[int, int], None]:
    """What writes the neighbours of the queries from a first to a last one to their rows."""
    from pointcluster.ops.search.cpu_kernels import nearest

    axes, q = np.ascontiguousarray(pos.numpy().T), np.ascontiguousarray(query.numpy())
    starts, query_starts = np.array(starts_of(sizes)), np.array(starts_of(query_sizes))

    def some(begin: int, end: int) -> None:
        nearest(axes, q, k, starts, query_starts, begin, end, out)

    return some
