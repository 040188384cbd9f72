"""Colours for clusters."""

from __future__ import annotations

import numpy as np

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
    return PALETTE[colour_numbers(pos, index)[index]]


def colour_numbers(
    pos: np.ndarray, index: np.ndarray, wanted: np.ndarray | None = None
) -> np.ndarray:
    """The number in the palette of every cluster; see :func:`cluster_colours`.

    Args:
        pos: Positions ``[P, D]``.
        index: Cluster of every point ``[P]``, counted from 0, none left out.
        wanted: For each cluster the colour that it would like to have, or -1 ``[M]``. It gets it
            unless another cluster beside it has it already; with no more clusters than colours,
            unless any other has it.
    """
    count = np.bincount(index)
    middle = np.stack([np.bincount(index, axis) / count for axis in pos.T.astype(np.float64)], 1)
    number = np.full(len(count), -1)
    distance = np.full((len(PALETTE), len(count)), np.inf)  # of each cluster to each colour

    def give(cluster: int, colour: int) -> None:
        number[cluster] = colour
        away = np.linalg.norm(middle - middle[cluster], axis=1)
        distance[colour] = np.minimum(distance[colour], away)

    if wanted is not None:
        near = np.inf if len(count) <= len(PALETTE) else 1.5 * _spacing(middle)
        for m in np.argsort(-count, kind="stable"):  # large ones first
            if wanted[m] >= 0 and distance[wanted[m], m] >= near:
                give(m, wanted[m])
    up = min(1, pos.shape[1] - 1)
    for m in np.lexsort((middle[:, 0], middle[:, up])):
        if number[m] < 0:
            give(m, int(np.argmax(distance[:, m])))
    return number


def _spacing(middle: np.ndarray) -> float:
    """How far the nearest other cluster usually is."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(middle).query(middle, k=2)[0][:, 1]))
