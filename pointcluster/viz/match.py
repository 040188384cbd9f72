"""Which cluster of one clustering is which of another."""

from __future__ import annotations

import numpy as np

LARGEST = 4_000_000
"""Pairs of clusters up to which the best matching is worked out; beyond, a good one."""


def match_clusters(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Match two clusterings of the same points, one to one, by the points that they share.

    The matched clusters share as many points as they can in all. Of very many clusters, pairs are
    taken by size instead, the largest first.

    Args:
        first: Cluster of every point ``[P]``, counted from 0.
        second: The other cluster of every point ``[P]``, counted from 0.

    Returns:
        For each cluster of the second its match in the first, or -1: none shares a point with it,
        or they have other matches.

    Raises:
        ValueError: They are of different numbers of points.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array

    if first.shape != second.shape:
        raise ValueError(f"clusterings of {len(first)} and {len(second)} points cannot be matched")
    shape = (int(second.max()) + 1, int(first.max()) + 1)
    shared = coo_array((np.ones(len(first), dtype=np.int64), (second, first)), shape=shape)
    shared.sum_duplicates()
    match = np.full(shape[0], -1)
    if shape[0] * shape[1] <= LARGEST:
        rows, columns = linear_sum_assignment(shared.toarray(), maximize=True)
        match[rows] = np.where(shared.toarray()[rows, columns] > 0, columns, -1)
        return match
    taken = np.zeros(shape[1], dtype=bool)
    for i in np.argsort(-shared.data, kind="stable"):
        row, column = shared.row[i], shared.col[i]
        if match[row] < 0 and not taken[column]:
            match[row], taken[column] = column, True
    return match
