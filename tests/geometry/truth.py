"""Plain loops that say what the geometry should answer."""

from __future__ import annotations

import numpy as np


def squared(a, b):
    """Squared distance in the arrays' own dtype, axis after axis."""
    total = a.dtype.type(0)
    for axis in range(len(a)):
        step = a[axis] - b[axis]
        total = total + step * step
    return total


def loop_knn(pos, query, k, batch, query_batch):
    """The k nearest by (distance, index), repeated from the start where there are fewer."""
    out = []
    for q, cloud in zip(query, query_batch, strict=True):
        found = sorted((squared(pos[i], q), i) for i in range(len(pos)) if batch[i] == cloud)
        out.append([found[j % min(k, len(found))][1] for j in range(k)])
    return np.array(out, dtype=np.int64).reshape(-1, k)


def loop_fps(pos, num, first):
    """Farthest points of one cloud from its point `first` on; the lower index of equals."""
    picks = [first]
    while len(picks) < min(num, len(pos)):
        best, value = None, None
        for i in range(len(pos)):
            if i in picks:
                continue
            d = min(squared(pos[i], pos[p]) for p in picks)
            if value is None or d > value:
                best, value = i, d
        picks.append(best)
    return picks
