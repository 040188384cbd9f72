"""The height of a scene's points above the ground around them, found without any classes."""

from __future__ import annotations

import numpy as np

CELL = 8.0
"""Edge of the grid's cells, in metres."""
WINDOWS = (3, 5, 9, 15)
"""Cells that a roof or a crown may span and be seen as no ground, from the narrowest on."""
STEP, SLOPE = 1.0, 0.05
"""What may rise within a window and be ground: metres, and so many more a metre of it."""
DROP = 10.0
"""So far below what is around it a cell's lowest point is a stray one, in metres."""
MOST_CELLS = 1 << 25


class GroundGrid:
    r"""The lowest points of a grid's cells, and of those the ones that may be ground.

    A cell's lowest point is mostly ground. Where a roof or a crown fills whole cells, an opening
    (the maximum of the minimum over a window of cells) takes it away if it rises more than ground
    does over such a window, from narrow windows to wide ones: the progressive filter of Zhang et
    al., IEEE TGRS 2003. Heights are above that surface, bilinear between the middles of cells. It
    is a feature for a network, and no terrain model: on slopes the surface lies low.

    Points are taken in piece by piece; only cells with points in them are held.
    """

    def __init__(self) -> None:
        self.cells = np.zeros((0, 2), np.int64)
        """The cells with points, in rising order. [K, 2]"""
        self.count = np.zeros(0, np.int64)
        """Their numbers of points. [K]"""
        self._least = np.zeros(0)
        self._surface: np.ndarray | None = None

    def add(self, pos: np.ndarray) -> None:
        """Take in some points. [N, 3]"""
        here = np.floor(pos[:, :2] / CELL).astype(np.int64)
        cells = np.concatenate([self.cells, here])
        least = np.concatenate([self._least, pos[:, 2]])
        count = np.concatenate([self.count, np.ones(len(pos), np.int64)])
        order = np.lexsort((cells[:, 1], cells[:, 0]))
        cells = cells[order]
        first = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
        self.cells = cells[first]
        self._least = np.minimum.reduceat(least[order], first)
        self.count = np.add.reduceat(count[order], first)
        self._surface = None

    def surface(self) -> np.ndarray:
        """The ground at the middles of cells, from the lowest cell on. [X, Y]

        Raises:
            ValueError: The points span so wide that a stray one must be among them.
        """
        from scipy import ndimage

        if self._surface is None:
            shape = np.ptp(self.cells, axis=0) + 1
            if shape.prod() > MOST_CELLS:
                wide = shape * CELL / 1000
                raise ValueError(
                    f"the points span {wide[0]:,.0f} by {wide[1]:,.0f} km, more than a scene in "
                    "metres can: is one of them far off, or are these no metres?"
                )
            least = np.full(shape, np.inf)
            least[tuple((self.cells - self.cells.min(axis=0)).T)] = self._least
            empty = np.isinf(least)
            if empty.any():
                nearest = ndimage.distance_transform_edt(
                    empty, return_distances=False, return_indices=True
                )
                least = least[tuple(nearest)]
            around = ndimage.median_filter(least, 5, mode="nearest")
            least = np.where(least < around - DROP, around, least)
            before = 1
            for window in WINDOWS:
                opened = ndimage.grey_opening(least, (window, window), mode="nearest")
                rise = STEP + SLOPE * CELL * (window - before)
                least, before = np.where(least - opened > rise, opened, least), window
            self._surface = least
        return self._surface

    def height(self, pos: np.ndarray) -> np.ndarray:
        """How high above the ground points are. [N, 3] to [N]"""
        from scipy import ndimage

        place = pos[:, :2] / CELL - 0.5 - self.cells.min(axis=0)
        ground = ndimage.map_coordinates(self.surface(), place.T, order=1, mode="nearest")
        height: np.ndarray = pos[:, 2] - ground
        return height
