"""Colours for the nodes of a graph."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np


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

    A node gets the colour that it wants unless a larger one that it is bound to wants it, too, or
    has no other left. Others get the colour whose nearest use lies farthest away. Where colours do
    not suffice, nodes that touch least share one.

    The node that is bound to the fewest others is coloured last, of the rest again, and so on. So
    a colour is left for each, unless in some set of nodes each is bound to as many of the set as
    there are colours. Where there is such a set, another order may still find colours enough.

    Args:
        touch: How much two nodes touch; a sparse matrix, both ways ``[M, M]``.
        bounds: Which are bound to differ, those that touch among them; the same.
        middle: Where the nodes lie ``[M, D]``.
        size: How large they are ``[M]``.
        wanted: The colour that each would like to have, or -1 ``[M]``.
        colours: How many there are.
        crowded_first: Colour next whichever is bound to nodes of the most colours.

    Shapes and units:
        Colours are counted from 0, ``[M]``.
    """
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
    order = smallest_last(bounds)
    for i in range(count):
        m = order[i]
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


def smallest_last(graph: Any) -> list[int]:
    """Nodes in an order in which each comes after as few of its neighbours as can be.

    Args:
        graph: A sparse matrix, both ways ``[M, M]``.
    """
    degree = np.diff(graph.indptr).tolist()
    heap = [(each, -m) for m, each in enumerate(degree)]
    heapq.heapify(heap)
    out: list[int] = []
    while heap:
        each, m = heapq.heappop(heap)
        m = -m
        if each != degree[m]:  # it has lost neighbours since, or is out
            continue
        degree[m] = -1
        out.append(m)
        for other in _beside(graph, m).tolist():
            if degree[other] > 0:
                degree[other] -= 1
                heapq.heappush(heap, (degree[other], -other))
    return out[::-1]


def _kept(bounds: Any, size: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The wanted colours, but for nodes that are bound to a larger one with the same."""
    kept = np.full(len(size), -1)
    for m in np.argsort(-size, kind="stable").tolist():
        if wanted[m] >= 0 and not (kept[_beside(bounds, m)] == wanted[m]).any():
            kept[m] = wanted[m]
    return kept


def _beside(graph: Any, node: int) -> np.ndarray:
    found: np.ndarray = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
    return found
