"""The searches as plain loops, compiled by Numba when they first run.

Loaded only where Numba is installed. Each operation is rounded by itself, as everywhere in this
package: the compiler may neither fuse a product with a sum nor reorder sums. (It may assume that
there is no NaN, which the entry points have checked.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile without Python's lock; keep the result on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"nnan", "nsz"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(**options)(function)


BUCKETS = 128
"""Into so many the candidates of a query are sorted by their distance."""


@_compiled
def distances(axes: np.ndarray, point: np.ndarray, begin: int, end: int, out: np.ndarray) -> None:
    """`squared_distance` from a point [D] to the points `begin` to `end` of `axes` [D, N]."""
    row, coordinate = axes[0, begin:end], point[0]
    for i in range(len(row)):
        step = row[i] - coordinate
        out[i] = step * step
    for axis in range(1, len(axes)):
        row, coordinate = axes[axis, begin:end], point[axis]
        for i in range(len(row)):
            step = row[i] - coordinate
            out[i] += step * step


@_compiled
def nearest(
    axes: np.ndarray,
    query: np.ndarray,
    k: int,
    starts: np.ndarray,
    query_starts: np.ndarray,
    begin: int,
    end: int,
    out: np.ndarray,
) -> None:
    """The `k` nearest points of the queries `begin` to `end`, by distance and then index.

    The neighbours of the query before are `k` points that are not far, so none of the nearest is
    farther than the farthest of them: few points are left to sort, and buckets sort them.

    Args:
        axes: Positions of the points, axis by axis. [D, N]
        query: Positions of the queries. [M, D]
        k: How many neighbours.
        starts: Where each cloud's points start, and where the last one's end. [B + 1]
        query_starts: The same of the queries. [B + 1]
        begin: First query to answer.
        end: The one after the last.
        out: Where the indices go. [M, k]
    """
    most = 0
    for cloud in range(len(starts) - 1):
        most = max(most, starts[cloud + 1] - starts[cloud])
    distance = np.empty(most, axes.dtype)
    candidate = np.empty(most + 1, np.int32)
    bucket = np.empty(most, np.int32)
    value = np.empty(most, axes.dtype)
    index = np.empty(most, np.int32)
    place = np.empty(BUCKETS + 1, np.int32)
    cloud, fresh = 0, True
    for row in range(begin, end):
        while row >= query_starts[cloud + 1]:
            cloud += 1
            fresh = True
        start, stop = starts[cloud], starts[cloud + 1]
        n = stop - start
        wanted = min(k, n)
        distances(axes, query[row], start, stop, distance)
        if fresh:
            bound = distance[0]
            for i in range(1, n):
                bound = max(bound, distance[i])
            fresh = False
        else:
            bound = distance[index[0]]
            for j in range(1, wanted):
                bound = max(bound, distance[index[j]])
        found = 0
        for i in range(n):
            candidate[found] = i
            found += 1 if distance[i] <= bound else 0
        found = _in_buckets(distance, candidate, found, wanted, bound, bucket, place, value, index)
        if found > 4 * wanted + BUCKETS:  # most share a bucket: cut them at the last one wanted
            bound = np.partition(value[:found], wanted - 1)[wanted - 1]
            kept = 0
            for c in range(found):
                if value[c] <= bound:
                    value[kept], index[kept] = value[c], index[c]
                    kept += 1
            found = kept
        for c in range(1, found):  # insertion: all are near their place, equals stay in order
            v, i = value[c], index[c]
            j = c
            while j > 0 and value[j - 1] > v:
                value[j], index[j] = value[j - 1], index[j - 1]
                j -= 1
            value[j], index[j] = v, i
        for j in range(k):
            out[row, j] = start + index[j % wanted]


@_compiled
def _in_buckets(
    distance: np.ndarray,
    candidate: np.ndarray,
    found: int,
    wanted: int,
    bound: float,
    bucket: np.ndarray,
    place: np.ndarray,
    value: np.ndarray,
    index: np.ndarray,
) -> int:
    """Sort candidates into buckets of equal reach, as far as `wanted` of them; how many that is."""
    scale = (BUCKETS - 1) / bound if bound > 0 else 0 * bound
    place[:] = 0
    for c in range(found):
        own: Any = min(max(np.int32(distance[candidate[c]] * scale), 0), BUCKETS - 1)
        bucket[c] = own
        place[own] += 1
    total, last = 0, BUCKETS
    for b in range(BUCKETS):
        count = place[b]
        place[b] = total
        total += count
        if total >= wanted:
            last = b
            break
    for c in range(found):
        own = bucket[c]
        if own <= last:
            at = place[own]
            place[own] = at + 1
            value[at], index[at] = distance[candidate[c]], candidate[c]
    return total


@_compiled
def farthest(
    axes: np.ndarray,
    starts: np.ndarray,
    first: np.ndarray,
    pick_starts: np.ndarray,
    begin: int,
    end: int,
    out: np.ndarray,
    whole: np.ndarray,
) -> None:
    """Farthest point sampling of the clouds `begin` to `end`, each from its point `first` on.

    Args:
        axes: Positions of the points, axis by axis. [D, N]
        starts: Where each cloud's points start, and where the last one's end. [B + 1]
        first: The first anchor of each cloud, counted inside the cloud. [B]
        pick_starts: Where each cloud's anchors start, and where the last one's end. [B + 1]
        begin: First cloud.
        end: The one after the last.
        out: Where the indices go. [number of anchors]
        whole: Any array of integers as wide as the positions.
    """
    # Bits of numbers that are not negative are ordered as they are; -1 is below them in both.
    # Maxima of integers are worked out several at a time, those of floating numbers are not.
    point = np.empty(len(axes), axes.dtype)
    for cloud in range(begin, end):
        if pick_starts[cloud] == pick_starts[cloud + 1]:
            continue
        start, stop = starts[cloud], starts[cloud + 1]
        distance = np.empty(stop - start, axes.dtype)
        near = np.full(stop - start, np.inf, axes.dtype)
        bits, near_bits = distance.view(whole.dtype), near.view(whole.dtype)
        pick: Any = np.int32(first[cloud])
        none = np.int32(stop - start)
        for at in range(pick_starts[cloud], pick_starts[cloud + 1]):
            out[at] = start + pick
            near[pick] = -1  # below every distance: never chosen again
            for axis in range(len(axes)):
                point[axis] = axes[axis, start + pick]
            distances(axes, point, start, stop, distance)
            most = near_bits[pick]
            for i in range(len(bits)):
                d = min(near_bits[i], bits[i])
                near_bits[i] = d
                most = max(most, d)
            place: Any = none
            for i in range(len(bits)):
                place = min(place, np.int32(i) if near_bits[i] == most else none)
            pick = place
