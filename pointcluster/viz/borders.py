"""Lines between the regions of a picture."""

from __future__ import annotations

import numpy as np


def border_lines(label: np.ndarray) -> list[np.ndarray]:
    """The lines between pixels of different labels, as long as they go straight.

    Args:
        label: Of every pixel ``[H, W]``.

    Returns:
        For each line its two ends (column, row), where pixel (row, column) fills the square of side
        1 around its place. ``[2, 2]``
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
