"""Colours for clusters."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointcluster.viz.colouring import colour_nodes
from pointcluster.viz.contacts import contacts

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, less black and
# with a yellow that shows on white.
PALETTE = (
    np.array(
        [
            [0, 114, 178],
            [230, 159, 0],
            [0, 158, 115],
            [204, 121, 167],
            [86, 180, 233],
            [213, 94, 0],
            [228, 214, 20],
            [110, 110, 110],
        ]
    )
    / 255.0
)

MANY = 2000
"""Clusters up to which a second order is tried where colours do not suffice; it takes longer."""


def cluster_colours(pos: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """One colour a point of a cloud, such that clusters that touch differ.

    Up to eight clusters all differ. Of more, each takes the colour whose nearest use lies farthest
    away, of those that no cluster has that touches it. The same input gives the same colours.

    Args:
        pos: Positions ``[P, D]``.
        cluster: Cluster of every point ``[P]``, any integers.

    Shapes and units:
        Colours are ``[P, 3]``, red, green and blue from 0 to 1.
    """
    _, index = np.unique(cluster, return_inverse=True)
    return PALETTE[colour_numbers(pos, index, contacts(pos))[index]]


def colour_numbers(
    pos: np.ndarray,
    index: np.ndarray,
    touching: np.ndarray,
    *,
    region: np.ndarray | None = None,
    wanted: np.ndarray | None = None,
) -> np.ndarray:
    """The number in the palette of every cluster; see :func:`cluster_colours`.

    Clusters that touch get different colours, and so do those of one region, if it has no more than
    there are colours; with no more clusters than colours, all do. Each gets the colour that it
    wants unless one of those, of more points, wants it, or has no other left. Where colours do not
    suffice, clusters that touch at few points share one.

    Args:
        pos: Positions ``[P, D]``.
        index: Cluster of every point ``[P]``, counted from 0, none left out.
        touching: Pairs of points that touch ``[C, 2]``, as :func:`contacts` gives them.
        region: Region of every point ``[P]``.
        wanted: For each cluster the colour that it would like to have, or -1 ``[M]``.
    """
    count = np.bincount(index)
    middle = np.stack([np.bincount(index, axis) / count for axis in pos.T.astype(np.float64)], 1)
    # From the bottom up, so that the numbers of clusters do not matter.
    rank = np.lexsort((middle[:, 0], middle[:, min(1, pos.shape[1] - 1)]))
    place = np.argsort(rank)
    touch = _touching(place[index], touching, len(count))
    group = np.zeros(len(pos), dtype=np.int64) if len(count) <= len(PALETTE) else region
    beside = touch if group is None else _with_groups(touch, place[index], group)
    want = np.full(len(count), -1) if wanted is None else wanted[rank]
    best, least = place, (np.inf, np.inf)
    for bounds, crowded_first in [(beside, False), (beside, True), (touch, False), (touch, True)]:
        if crowded_first and len(count) > MANY:
            continue
        number = colour_nodes(
            touch, bounds, middle[rank], count[rank], want, len(PALETTE),
            crowded_first=crowded_first,
        )  # fmt: skip
        shared = _shared(touch, number), _shared(beside, number)
        if shared < least:
            best, least = number, shared
        if shared == (0, 0):
            break
    return best[place]


def _shared(graph: Any, number: np.ndarray) -> float:
    """How much clusters of one colour touch."""
    ends = np.repeat(np.arange(len(number)), np.diff(graph.indptr))
    return float(graph.data[number[ends] == number[graph.indices]].sum())


def _touching(index: np.ndarray, touching: np.ndarray, count: int) -> Any:
    """At how many places two clusters touch: a sparse matrix, both ways. [M, M]"""
    from scipy.sparse import coo_array

    one, other = index[touching].T
    differ = one != other
    found = coo_array((np.ones(differ.sum()), (one[differ], other[differ])), shape=(count, count))
    return (found + found.T).tocsr()


def _with_groups(touch: Any, index: np.ndarray, group: np.ndarray) -> Any:
    """The same, with clusters of one group, if these are not too many, as if they touched."""
    from scipy.sparse import coo_array

    pairs = np.unique(np.stack([np.unique(group, return_inverse=True)[1], index], axis=1), axis=0)
    few = np.bincount(pairs[:, 0])[pairs[:, 0]] <= len(PALETTE)
    rows, columns = pairs[few].T
    member = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(pairs), touch.shape[0]))
    both = (member.T @ member).tocoo()
    off = both.row != both.col
    shape = touch.shape
    return (
        touch + coo_array((both.data[off], (both.row[off], both.col[off])), shape=shape)
    ).tocsr()
