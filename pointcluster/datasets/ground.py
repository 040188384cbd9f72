"""The height of a scene's points above the ground around them, found without any classes."""

from __future__ import annotations

import numpy as np

CELL = 8.0
"""Edge of the coarse grid's cells, in metres."""
WINDOWS = (3, 5, 9, 15)
"""Cells that a roof or a crown may span and be seen as no ground, from the narrowest on."""
STEP, SLOPE = 1.0, 0.05
"""What may rise within a window and be ground: metres, and so many more a metre of it."""
DROP = 10.0
"""So far below what is around it a cell's lowest point is a stray one, in metres."""
MOST_CELLS = 1 << 25
PARTS = 4
"""Fine cells along the edge of a coarse one."""
REACHES = (16.0, 8.0, 4.0, 2.0, 2.0)
"""How far around a place the fine ground is a mean of, from round to round, in metres."""
ABOVE = 0.2
"""So far above the ground a fine cell's lowest point is taken for it no more, in metres; more on
slopes, and in the first round, when the ground is not well known."""
FAINT = 0.01
"""What the ground of the round before weighs where hardly any point is ground."""
MOST_FINE_CELLS = 1 << 25


class GroundGrid:
    r"""The lowest points of a grid's cells, and of those the ones that may be ground.

    A cell's lowest point is mostly ground. Where a roof or a crown fills whole cells, an opening
    (the maximum of the minimum over a window of cells) takes it away if it rises more than ground
    does over such a window, from narrow windows to wide ones: the progressive filter of Zhang et
    al., IEEE TGRS 2003. That is the coarse ground; on slopes it lies low. The fine ground begins
    with it and is moved, round by round, towards the lowest points of cells of a quarter of the
    edge that lie near it, averaged over ever narrower surroundings. Heights are bilinear between
    the middles of cells: features for a network, no terrain model.

    Points are taken in piece by piece; only cells with points in them are held.
    """

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.int64)
        self._least = np.zeros(0)
        self._coarse: np.ndarray | None = None
        self._fine: np.ndarray | None = None

    def add(self, pos: np.ndarray) -> None:
        """Take in some points. [N, 3]"""
        # Strays beyond any scene are refused later, by how wide it is.
        here = np.floor(pos[:, :2] / (CELL / PARTS)).clip(-(1 << 30), 1 << 30).astype(np.int64)
        # First those of the piece, then with what was there: fewer are sorted.
        keys, least = _lowest((here[:, 0] << 32) + here[:, 1], pos[:, 2])
        self._keys, self._least = _lowest(
            np.concatenate([self._keys, keys]), np.concatenate([self._least, least])
        )
        self._coarse = self._fine = None

    @property
    def cells(self) -> np.ndarray:
        """The fine cells with points, in rising order. [K, 2]"""
        x = (self._keys + (1 << 31)) >> 32
        return np.column_stack([x, self._keys - (x << 32)])

    def _corner(self) -> np.ndarray:
        """The lowest coarse cell along x and y. [2]"""
        corner: np.ndarray = self.cells.min(axis=0) // PARTS
        return corner

    def surface(self) -> np.ndarray:
        """The coarse ground at the middles of cells, from the lowest cell on. [X, Y]

        Raises:
            ValueError: The points span so wide that a stray one must be among them.
        """
        from scipy import ndimage

        if self._coarse is None:
            cells = self.cells // PARTS
            shape = np.ptp(cells, axis=0) + 1
            if shape.prod() > MOST_CELLS:
                wide = shape * CELL / 1000
                raise ValueError(
                    f"the points span {wide[0]:,.0f} by {wide[1]:,.0f} km, more than a scene in "
                    "metres can: is one of them far off, or are these no metres?"
                )
            least = np.full(shape, np.inf)
            np.minimum.at(least, tuple((cells - cells.min(axis=0)).T), self._least)
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
            self._coarse = least
        return self._coarse

    def fine_surface(self) -> np.ndarray:
        """The fine ground at the middles of fine cells; the coarse one where it is too wide. [X, Y]

        Raises:
            ValueError: As :meth:`surface`.
        """
        from scipy import ndimage

        if self._fine is None:
            coarse = self.surface()
            shape = PARTS * np.array(coarse.shape)
            if shape.prod() > MOST_FINE_CELLS:
                self._fine = coarse
                return coarse
            cell = CELL / PARTS
            axes = [((np.arange(size) + 0.5) / PARTS - 0.5) for size in shape]
            places = np.meshgrid(*axes, indexing="ij")
            ground = ndimage.map_coordinates(coarse, places, order=1, mode="nearest")
            ground = ground.astype(np.float32)
            del places
            lowest = np.full(shape, np.nan, np.float32)
            lowest[tuple((self.cells - PARTS * self._corner()).T)] = self._least
            for number, reach in enumerate(REACHES):
                smooth = ndimage.gaussian_filter(ground, max(reach, 4.0) / cell)
                slope = np.hypot(*np.gradient(smooth, cell)) if min(shape) > 1 else 0.0
                known = ABOVE + 0.3 * slope * (2 * cell if number else CELL)
                rise = lowest - ground
                width = np.where(rise > 0, 1.0, 3.0) * (known if number else known + 0.7)
                near = np.nan_to_num(np.exp(-np.square(rise / width)))
                # What lies far below is ground as well, unless it is alone.
                near = np.where(rise < 0, near + 1e-3, near).astype(np.float32)
                moved = ndimage.gaussian_filter(
                    near * np.nan_to_num(rise), reach / cell, mode="nearest"
                )
                weight = ndimage.gaussian_filter(near, reach / cell, mode="nearest")
                ground += moved / (weight + FAINT)
            self._fine = ground
        return self._fine

    def height(self, pos: np.ndarray) -> np.ndarray:
        """How high above the coarse ground points are. [N, 3] to [N]"""
        return pos[:, 2] - self._at(pos, self.surface())

    def fine_height(self, pos: np.ndarray) -> np.ndarray:
        """How high above the fine ground points are. [N, 3] to [N]"""
        return pos[:, 2] - self._at(pos, self.fine_surface())

    def _at(self, pos: np.ndarray, surface: np.ndarray) -> np.ndarray:
        """A surface below points, bilinear between the middles of its cells."""
        from scipy import ndimage

        parts = surface.shape[0] // self.surface().shape[0]
        place = (pos[:, :2] / CELL - self._corner()) * parts - 0.5
        ground: np.ndarray = ndimage.map_coordinates(
            surface, place.T, order=1, mode="nearest", output=np.float64
        )
        return ground


def _lowest(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every key once, in rising order, with its least value."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return keys[first], np.minimum.reduceat(values[order], first)
