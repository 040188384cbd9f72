"""Where points touch, and the lines between the regions of a picture."""

from __future__ import annotations

import numpy as np

NEAREST = 6
"""Other points that a point of a cloud touches."""


def contacts(pos: np.ndarray, shows: np.ndarray | None = None) -> np.ndarray:
    """Pairs of points that touch: of pixels side by side, or near neighbours of a cloud. [C, 2]

    A pair may come twice, and in either order.

    Args:
        pos: Positions ``[P, D]``.
        shows: The point that each pixel of a picture shows, or -1 ``[H, W]``; `None`: a cloud.
    """
    if shows is not None:
        points = filled(shows, np.arange(len(pos)))
        sides = [(points[1:], points[:-1]), (points[:, 1:], points[:, :-1])]
        pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in sides])
        return pairs[pairs[:, 0] != pairs[:, 1]]
    near = nearest(pos)
    return np.stack([np.repeat(near[:, 0], near.shape[1] - 1), near[:, 1:].ravel()], axis=1)


def nearest(pos: np.ndarray) -> np.ndarray:
    """Every point of a cloud, and the nearest others. [P, 1 + NEAREST] or fewer columns"""
    from scipy.spatial import cKDTree

    count = min(NEAREST + 1, len(pos))
    near = cKDTree(pos).query(pos, k=count)[1].reshape(len(pos), count)
    # Of points at one place, any may come first: the point itself shall.
    itself = np.arange(len(pos))
    at = np.argmax(near == itself[:, None], axis=1)
    near[itself, at] = near[:, 0]
    near[:, 0] = itself
    return near


def filled(shows: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """The value of each pixel's point, or where it shows none, of the nearest that shows one."""
    from scipy.ndimage import distance_transform_edt

    assert shows is not None
    if (shows < 0).any():
        rows, columns = distance_transform_edt(
            shows < 0, return_distances=False, return_indices=True
        )
        shows = shows[rows, columns]
    return values[shows]


def border_lines(label: np.ndarray) -> list[np.ndarray]:
    """The lines between pixels of different labels [H, W], as long as they go straight.

    A line is its two ends (column, row) [2, 2]; a pixel fills a square of side 1 around its place.
    """
    lines = []
    for turned, map_ in [(False, label), (True, label.T)]:
        differ = (map_[1:] != map_[:-1]).astype(np.int8)  # between one row and the next
        step = np.diff(differ, axis=1, prepend=0, append=0)
        row, begin = np.nonzero(step == 1)
        end = np.nonzero(step == -1)[1]
        for r, a, b in zip(row, begin, end, strict=True):
            line = np.array([[a - 0.5, r + 0.5], [b - 0.5, r + 0.5]])
            lines.append(line[:, ::-1] if turned else line)
    return lines
