"""Nearest points of large clouds on the CPU: SciPy's KD-trees find them, our rule orders them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pointcluster.ops.search import cpu
from pointcluster.ops.search.clouds import starts_of
from pointcluster.ops.search.threads import in_threads, thread_count

PAIRS = 1 << 20
"""How many distances are held at a time where ties are settled."""


def knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    loops_up_to: int = 0,
) -> Tensor:
    """See :func:`pointcluster.ops.knn`; clouds of so many points or fewer go to compiled loops."""
    p, q = pos.numpy(), query.numpy()
    out = np.empty((len(q), k), np.int64)
    starts, query_starts = starts_of(sizes), starts_of(query_sizes)
    clouds = [c for c, m in enumerate(query_sizes) if m]
    loops = cpu.nearest_loops(pos, query, k, sizes, query_sizes, out) if loops_up_to else None

    def one(cloud: int, workers: int = 1) -> None:
        rows = slice(query_starts[cloud], query_starts[cloud + 1])
        if loops is not None and sizes[cloud] <= loops_up_to:
            loops(rows.start, rows.stop)
            return
        points = p[starts[cloud] : starts[cloud + 1]]
        out[rows] = _kd_tree(points, q[rows], k, workers) + starts[cloud]

    threads = thread_count()
    few = [c for c in clouds if query_sizes[c] * threads > len(q)]
    for cloud in few:  # more work than one thread's share
        one(cloud, threads)
    in_threads(one, [c for c in clouds if c not in few])
    return torch.from_numpy(out)


def _kd_tree(p: np.ndarray, q: np.ndarray, k: int, workers: int) -> np.ndarray:
    """The `k` nearest of the points `p` [N, D] for the queries `q` [M, D] of one cloud."""
    n = len(p)
    if n <= k + 1:
        order = np.argsort(_squared(p[None], q[:, None]), axis=1, kind="stable")
        return order[:, np.arange(k) % n]
    # An unbalanced tree is as fast to ask and much faster to build.
    tree = cKDTree(p, balanced_tree=False, compact_nodes=False)
    index = tree.query(q, k + 1, workers=workers)[1]
    unsure = _unsure(_squared(np.take(p, index, axis=0), q[:, None]), index, k)
    index = index[:, :k]
    if unsure.any():
        rows = np.flatnonzero(unsure)
        index[rows] = settle(p, q[rows], k)
    return index


def _unsure(d: np.ndarray, index: np.ndarray, k: int) -> np.ndarray:
    """Rows of candidates whose order, or whose last neighbour, rounding or a tie leaves open."""
    swapped = (d[:, 1:k] < d[:, : k - 1]) | (
        (d[:, 1:k] == d[:, : k - 1]) & (index[:, 1:k] < index[:, : k - 1])
    )
    return swapped.any(axis=1) | (d[:, k] <= _beyond(d[:, k - 1]))


def _beyond(d: np.ndarray) -> np.ndarray:
    """A distance that no point at distance `d` can be given by another order of rounding."""
    return d * (1 + 64 * np.finfo(d.dtype).eps)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`squared_distance` for arrays: the same operations in the same order."""
    total = np.square(a[..., 0] - b[..., 0])
    for axis in range(1, a.shape[-1]):
        total += np.square(a[..., axis] - b[..., axis])
    return total


def settle(p: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    """The exact answer for queries with ties: look farther until the last tie is complete.

    Coincident points are looked up as one, and then stand for their first `k` members: otherwise a
    million copies of one point would be a million ties for each of them.
    """
    if len(q) * len(p) <= PAIRS:  # few of them: look at every point
        return np.argsort(_squared(p[None], q[:, None]), axis=1, kind="stable")[:, :k]
    unique, inverse, count = np.unique(p, axis=0, return_inverse=True, return_counts=True)
    member = np.argsort(inverse.reshape(-1), kind="stable")  # unique point -> its members, rising
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    tree = cKDTree(unique, balanced_tree=False, compact_nodes=False)
    out = np.empty((len(q), k), np.int64)
    todo, look = np.arange(len(q)), min(k + 8, len(unique))
    while len(todo):
        again = []
        for rows in np.array_split(todo, -(-len(todo) * look // PAIRS)):
            u = tree.query(q[rows], look)[1].reshape(len(rows), look)
            d = _squared(np.take(unique, u, axis=0), q[rows][:, None])
            order = np.argsort(d, axis=1, kind="stable")
            u, d = np.take_along_axis(u, order, 1), np.take_along_axis(d, order, 1)
            last = (np.cumsum(count[u], axis=1) >= k).argmax(axis=1)  # holds the k-th neighbour
            kth = d[np.arange(len(rows)), last]
            done = (d[:, -1] > _beyond(kth)) | (look == len(unique))
            again.append(rows[~done])
            if done.any():
                out[rows[done]] = _expand(u[done], d[done], kth[done], k, count, first, member)
        todo, look = np.concatenate(again), min(2 * look, len(unique))
    return out


def _expand(
    u: np.ndarray,
    d: np.ndarray,
    kth: np.ndarray,
    k: int,
    count: np.ndarray,
    first: np.ndarray,
    member: np.ndarray,
) -> np.ndarray:
    """Replace unique points by their members and keep the first `k` by (distance, index)."""
    row, slot = np.nonzero(d <= kth[:, None])
    point = u[row, slot]
    copies = np.minimum(count[point], k)
    which = np.repeat(np.arange(len(row)), copies)
    step = np.arange(len(which)) - np.repeat(np.cumsum(copies) - copies, copies)
    index = member[first[point][which] + step]
    row, distance = row[which], d[row, slot][which]
    order = np.lexsort((index, distance, row))
    start = np.searchsorted(row[order], np.arange(len(u)))
    return index[order][start[:, None] + np.arange(k)]
