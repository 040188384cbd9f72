"""Polygons in space as triangles, also those that are not convex."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointcluster._optional import needed_for


def triangulate(
    pos: np.ndarray, polygons: np.ndarray | Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons into triangles that cover them, and nothing else.

    Around its first corner, where that sees all of the polygon, as it does in convex ones; else by
    cutting off ears in the polygon's plane, whose normal is Newell's.

    Args:
        pos: Where corners are.
        polygons: Corners ``[N, M]``, or those of each polygon where they differ in number. One or
            two corners make no triangle.

    Shapes:
        **pos** ``[V, 3]``; corners ``[T, 3]`` int64, and ``[T]`` the polygon that each is of.

    Raises:
        ImportError: A polygon is not convex, and mapbox_earcut is not installed.
        ValueError: A corner is none of the positions.
    """
    groups: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    if isinstance(polygons, np.ndarray) and polygons.ndim == 2:
        groups[polygons.shape[1]] = np.arange(len(polygons)), polygons
    else:
        lengths = np.array([len(polygon) for polygon in polygons], dtype=np.int64)
        order = lengths.argsort(kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            if len(rows):
                groups[int(lengths[rows[0]])] = rows, np.stack([polygons[row] for row in rows])
    triangles, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for length, (rows, corners) in groups.items():
        if corners.size:
            low, high = int(corners.min()), int(corners.max())
            if low < 0 or high >= len(pos):  # a negative one would count from the end
                corner = low if low < 0 else high
                raise ValueError(f"a face has vertex {corner} as a corner, of {len(pos):,} from 0")
        if length < 3:
            continue
        corners = corners.astype(np.int64)
        seen = _sees_all(pos[corners]) if length > 3 else np.ones(len(rows), bool)
        fan = np.stack([corners[:, :1].repeat(length - 2, 1), corners[:, 1:-1], corners[:, 2:]], 2)
        triangles.append(fan[seen].reshape(-1, 3))
        owners.append(rows[seen].repeat(length - 2))
        for row, polygon in zip(rows[~seen], corners[~seen], strict=True):
            triangles.append(polygon[_ears(pos[polygon])])
            owners.append(np.full(len(triangles[-1]), row))
    return np.concatenate(triangles), np.concatenate(owners)


def _sees_all(points: np.ndarray) -> np.ndarray:
    """Whether the triangles around the first corner all turn the same way. [N, M, 3] -> [N]"""
    # NaN, and polygons without an area, are whatever they are around the first corner.
    with np.errstate(invalid="ignore", over="ignore"):
        edges = points[:, 1:] - points[:, :1]
        turns = np.cross(edges[:, :-1], edges[:, 1:])  # [N, M - 2, 3]
        normal = turns.sum(axis=1, keepdims=True)
        along = (turns * normal).sum(axis=2)
        return ~(along < -1e-9 * (normal**2).sum(axis=2)).any(axis=1)


def _ears(points: np.ndarray) -> np.ndarray:
    """Triangles of one polygon, as places among its corners. [M, 3] -> [T, 3]"""
    with needed_for("a polygon that is not convex", "mapbox_earcut"):
        from mapbox_earcut import triangulate_float64
    near = points - points.mean(axis=0)
    normal = np.cross(near, np.roll(near, -1, axis=0)).sum(axis=0)
    # The plane's axes: seen along its normal's longest component, which keeps corners apart.
    drop = int(np.abs(normal).argmax())
    flat = np.ascontiguousarray(np.delete(near, drop, axis=1))
    ears = triangulate_float64(flat, np.array([len(flat)], np.uint32))
    found = np.asarray(ears, np.int64).reshape(-1, 3)
    a, b, c = (points[found[:, i]] for i in range(3))
    back = np.cross(b - a, c - a).sum(axis=0) @ normal < 0  # they turn as the polygon does
    return found[:, ::-1] if back else found
