"""Colours for clusters."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, less black and
# with a darker yellow that shows on white.
PALETTE = (
    np.array(
        [
            [0, 114, 178],
            [230, 159, 0],
            [0, 158, 115],
            [204, 121, 167],
            [86, 180, 233],
            [213, 94, 0],
            [214, 200, 20],
            [110, 110, 110],
        ]
    )
    / 255.0
)


def cluster_colours(pos: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """One colour a point, such that neighbouring clusters differ.

    Clusters are coloured one after the other, from the bottom up. Each takes the colour whose
    nearest use lies farthest away; an unused one is infinitely far. So up to eight clusters all
    differ, and more repeat a colour only at a distance. The same input gives the same colours.

    Args:
        pos: Positions ``[P, D]``.
        cluster: Cluster of every point ``[P]``, any integers.

    Shapes and units:
        Colours are ``[P, 3]``, red, green and blue from 0 to 1.
    """
    _, index = np.unique(cluster, return_inverse=True)
    count = np.bincount(index)
    middle = np.stack([np.bincount(index, axis) / count for axis in pos.T.astype(np.float64)], 1)
    up = min(1, pos.shape[1] - 1)
    colour_of = np.zeros(len(count), dtype=np.int64)
    distance = np.full((len(PALETTE), len(count)), np.inf)  # of each cluster to each colour
    for m in np.lexsort((middle[:, 0], middle[:, up])):
        colour_of[m] = chosen = int(np.argmax(distance[:, m]))
        away = np.linalg.norm(middle - middle[m], axis=1)
        distance[chosen] = np.minimum(distance[chosen], away)
    return PALETTE[colour_of[index]]
