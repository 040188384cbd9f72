"""Colours for clusters: those that touch differ, and the same one keeps its colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointcluster.viz.borders import contacts

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, less black and
# with a yellow that shows on white.
CODES = "0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 e4d614 6e6e6e"
PALETTE = np.array([list(bytes.fromhex(code)) for code in CODES.split()]) / 255.0
MANY = 2000
"""Clusters up to which a second order is tried where colours do not suffice; it takes longer."""
LARGEST = 4_000_000
"""Pairs of clusters up to which the best matching is worked out; beyond, a good one."""


def cluster_colours(pos: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """One colour a point of a cloud, from 0 to 1, such that clusters that touch differ. [P, 3]

    Up to eight clusters all differ. Of more, each takes the colour whose nearest use lies farthest
    away, of those that no cluster has that touches it. The same input gives the same colours.

    Args:
        pos: Positions ``[P, D]``.
        cluster: Cluster of every point ``[P]``, any integers.
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
    there are colours; with no more clusters than colours, all do. A cluster gets the colour that it
    wants unless one of those, of more points, wants it, or has no other left. Where colours do not
    suffice, clusters that touch at few points share one.

    Args:
        pos: Positions ``[P, D]``.
        index: Cluster of every point ``[P]``, counted from 0, none left out.
        touching: Pairs of points that touch ``[C, 2]``, as :func:`contacts` gives them.
        region: Region of every point ``[P]``.
        wanted: For each cluster the colour that it would like to have, or -1 ``[M]``.
    """
    size = np.bincount(index)
    middle = np.stack([np.bincount(index, axis) / size for axis in pos.T.astype(np.float64)], 1)
    # From the bottom up, so that the numbers of clusters do not matter.
    rank = np.lexsort((middle[:, 0], middle[:, min(1, pos.shape[1] - 1)]))
    place = np.argsort(rank)
    touch = _touching(place[index], touching, len(size))
    group = np.zeros(len(pos), dtype=np.int64) if len(size) <= len(PALETTE) else region
    beside = touch if group is None else _with_groups(touch, place[index], group)
    want = np.full(len(size), -1) if wanted is None else wanted[rank]
    nodes, colours = (middle[rank], size[rank], want), len(PALETTE)
    best, least = place, (np.inf, np.inf)
    for bounds, crowded_first in [(beside, False), (beside, True), (touch, False), (touch, True)]:
        if crowded_first and len(size) > MANY:
            continue
        number = colour_nodes(touch, bounds, *nodes, colours, crowded_first=crowded_first)
        shared = _shared(touch, number), _shared(beside, number)
        if shared < least:
            best, least = number, shared
        if shared == (0, 0):
            break
    return best[place]


def colour_nodes(
    touch: Any,
    bounds: Any,
    middle: np.ndarray,
    size: np.ndarray,
    wanted: np.ndarray,
    colours: int,
    *,
    crowded_first: bool = False,
) -> np.ndarray:
    """A colour for every node, such that nodes that touch differ, and bound ones where they can.

    NetworkX says in which order: the node that is bound to the fewest others is coloured last, of
    the rest again, and so on. So a colour is left for each, unless in some set of nodes each is
    bound to as many of the set as there are colours. Where there is such a set, another order may
    still find colours enough. Its own choice of colours would be the first that is free; here a
    node gets the colour that it wants unless a larger one that it is bound to wants it, too, or has
    no other left, and others the colour whose nearest use lies farthest away. Where colours do not
    suffice, nodes that touch least share one.

    Args:
        touch: How much two nodes touch; a sparse matrix, both ways ``[M, M]``.
        bounds: Which are bound to differ, those that touch among them; the same.
        middle: Where the nodes lie ``[M, D]``.
        size: How large they are ``[M]``.
        wanted: The colour that each would like to have, or -1 ``[M]``.
        colours: How many there are.
        crowded_first: Colour next whichever is bound to nodes of the most colours.
    """
    import networkx as nx

    count = len(size)
    touched = np.zeros((count, colours))  # by nodes of each colour
    bound = np.zeros((count, colours))
    distance = np.full((colours, count), np.inf)
    kept = _kept(bounds, size, wanted)
    ahead: Any = np.zeros((count, colours))  # bound nodes that will have it most likely
    for m in np.flatnonzero(kept >= 0).tolist():
        ahead[_beside(bounds, m), kept[m]] += 1
    number = np.full(count, -1)
    middle = middle - middle.mean(axis=0)
    square = np.square(middle).sum(axis=1)
    degree = np.diff(bounds.indptr) / (count + 1)
    # Turned around, as it takes out the lowest of several with as few, which then come last.
    graph = nx.from_scipy_sparse_array(bounds[::-1, ::-1])
    for last in nx.coloring.strategy_smallest_last(graph, None):
        m = count - 1 - last
        if crowded_first:
            m = int(np.argmax(np.where(number < 0, (bound > 0).sum(axis=1) + degree, -1)))
        colour = int(kept[m])
        if colour < 0 or bound[m, colour]:
            colour = int(np.lexsort((-distance[:, m], ahead[m], bound[m], touched[m]))[0])
        number[m] = colour
        near = _beside(bounds, m)
        bound[near, colour] += 1
        if kept[m] >= 0:
            ahead[near, kept[m]] -= 1
        touched[_beside(touch, m), colour] += touch.data[touch.indptr[m] : touch.indptr[m + 1]]
        away = square - 2 * middle @ middle[m] + square[m]
        distance[colour] = np.minimum(distance[colour], away)
    return number


def match_clusters(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """For each cluster of a second clustering its match in the first, or -1.

    Clusterings of the same points are matched one to one, such that matched clusters share as many
    points as they can in all. Of very many clusters, pairs are taken by size instead, the largest
    first. What shares no point with any that is free has no match.

    Args:
        first: Cluster of every point ``[P]``, counted from 0.
        second: The other cluster of every point ``[P]``, counted from 0.

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
        dense = shared.toarray()
        rows, columns = linear_sum_assignment(dense, maximize=True)
        match[rows] = np.where(dense[rows, columns] > 0, columns, -1)
        return match
    taken = np.zeros(shape[1], dtype=bool)
    for i in np.argsort(-shared.data, kind="stable"):
        row, column = shared.row[i], shared.col[i]
        if match[row] < 0 and not taken[column]:
            match[row], taken[column] = column, True
    return match


def _kept(bounds: Any, size: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The wanted colours, but for nodes that are bound to a larger one with the same."""
    kept = np.full(len(size), -1)
    for m in np.argsort(-size, kind="stable").tolist():
        if wanted[m] >= 0 and not (kept[_beside(bounds, m)] == wanted[m]).any():
            kept[m] = wanted[m]
    return kept


def _beside(graph: Any, node: int) -> np.ndarray:
    beside: np.ndarray = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
    return beside


def _shared(graph: Any, number: np.ndarray) -> float:
    """How much clusters of one colour touch."""
    pairs = graph.tocoo()
    return float(pairs.data[number[pairs.row] == number[pairs.col]].sum())


def _touching(index: np.ndarray, touching: np.ndarray, count: int) -> Any:
    """At how many places two clusters touch: a sparse matrix, both ways. [M, M]"""
    from scipy.sparse import coo_array

    one, other = index[touching].T
    differ = one != other
    at = coo_array((np.ones(differ.sum()), (one[differ], other[differ])), shape=(count, count))
    return (at + at.T).tocsr()


def _with_groups(touch: Any, index: np.ndarray, group: np.ndarray) -> Any:
    """The same, with clusters of one group, if these are not too many, as if they touched."""
    from scipy.sparse import coo_array

    pairs = np.unique(np.stack([np.unique(group, return_inverse=True)[1], index], axis=1), axis=0)
    few = np.bincount(pairs[:, 0])[pairs[:, 0]] <= len(PALETTE)
    rows, columns = pairs[few].T
    member = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(pairs), touch.shape[0]))
    both = (member.T @ member).tocoo()
    both.data[both.row == both.col] = 0
    bounds = (touch + both).tocsr()
    bounds.eliminate_zeros()
    return bounds
