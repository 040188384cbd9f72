"""Which points of a picture or cloud touch one another."""

from __future__ import annotations

import numpy as np

from pointcluster.viz.borders import filled

NEAREST = 6
"""Other points that a point of a cloud touches."""


def contacts(pos: np.ndarray, shows: np.ndarray | None = None) -> np.ndarray:
    """Pairs of points that touch: of pixels side by side, or near neighbours of a cloud.

    A pair may come twice, and in either order.

    Args:
        pos: Positions ``[P, D]``.
        shows: The point that each pixel of a picture shows, -1 where it shows none ``[H, W]``;
            `None`: it is a cloud.

    Shapes and units:
        Numbers of points are ``[C, 2]``.
    """
    if shows is not None:
        points = filled(shows, np.arange(len(pos)))
        pairs = [(points[1:], points[:-1]), (points[:, 1:], points[:, :-1])]
        found = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
        return found[found[:, 0] != found[:, 1]]
    near = nearest(pos)
    return np.stack([np.repeat(near[:, 0], near.shape[1] - 1), near[:, 1:].ravel()], axis=1)


def nearest(pos: np.ndarray) -> np.ndarray:
    """Each point of a cloud, and the nearest others. [P, 1 + NEAREST] or fewer columns"""
    from scipy.spatial import cKDTree

    count = min(NEAREST + 1, len(pos))
    near = cKDTree(pos).query(pos, k=count)[1].reshape(len(pos), count)
    # Of points at one place, any may come first: the point itself shall.
    own = np.arange(len(pos))
    at = np.argmax(near == own[:, None], axis=1)
    near[own, at] = near[:, 0]
    near[:, 0] = own
    return near
