"""Depth that is seen: light on clouds of many points, as they are looked at or from all sides."""

from __future__ import annotations

import math

import numpy as np

FEW = 4000
"""Points up to which a cloud is drawn as dots, if nothing else is said."""
FINER = 2
"""Pixels of a side that become one, so that edges are smooth."""
STEEPEST = 1.5
"""Steps in depth, in steps on the screen, from which on a pixel is as dark as it can be."""
DARKEST = 0.75
"""What is taken off the light of a pixel where all around is nearer."""
SHADIEST = 0.7
"""What is taken off the light of a point with half of its neighbours high above it."""
BEHIND = np.float32(-1000)
"""The depth where no point is."""


def is_shaded(shading: bool | None, count: int) -> bool:
    """Whether so many points are drawn with shades, as was asked for."""
    return count > FEW if shading is None else shading


def eye_dome(
    points: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Draw points as discs, darker in hollows: where what is around them lies nearer to the eye.

    After Boucheny, *Interactive scientific visualization of large datasets: towards a
    perceptive-based approach*, 2009: no normals are needed, only the depth of the picture. Here
    opposite sides are taken together, so that a plane keeps its colour however it is turned, and
    steps are measured by the distance on the screen, so that small things in large scans have
    shades, too.

    Args:
        points: Places on the screen, and nearness, in the same unit ``[n, 3]``.
        colours: Of the points in each picture, from 0 to 1 ``[P, n, 3]``.
        size: Width and height in pixels.
        low: What the picture reaches from, along both axes.
        high: What it reaches to.

    Returns:
        Pictures ``[P, h, w, 3]``, uint8.
    """
    width, height = (FINER * side for side in size)
    unit = float((high - low)[0]) / width  # of a pixel
    place = (points[:, :2] - low) / (high - low) * [width, height]
    area = max(float(np.prod(np.ptp(place, axis=0))), 1.0)
    # So large that what they lie on has few holes.
    radius = max(2.0, min(1.3 * math.sqrt(area / len(points)), 0.02 * max(width, height)))
    order = np.argsort(points[:, 2], kind="stable")  # of one pixel's points the last is the nearest
    near = points[order, 2].astype(np.float32)
    column, row = np.floor(place[order]).astype(np.int64).T
    row = height - 1 - row
    depth = np.full((height, width), BEHIND)
    owner = np.full((height, width), -1)
    around = range(-int(radius), int(radius) + 1)
    for down, right in ((a, b) for a in around for b in around if a * a + b * b <= radius**2):
        r, c = row + down, column + right
        inside = np.flatnonzero((r >= 0) & (r < height) & (c >= 0) & (c < width))
        won = inside[near[inside] >= depth[r[inside], c[inside]]]
        depth[r[won], c[won]] = near[won]
        owner[r[won], c[won]] = order[won]
    light = 1 - DARKEST * _hollow(depth, max(1, round(radius)), unit)
    out = []
    for painted in colours:
        image = np.where(owner[..., None] >= 0, painted[owner] * light[..., None], 1.0)
        image = image.reshape(size[1], FINER, size[0], FINER, 3).mean(axis=(1, 3))
        out.append(np.rint(255 * image).astype(np.uint8))
    return np.stack(out)


def _hollow(depth: np.ndarray, step: int, unit: float) -> np.ndarray:
    """How much nearer the pixels on opposite sides are, close by and farther off: 0 to 1."""
    total = np.zeros_like(depth)
    steps = [(times * step, 1 / times) for times in (1, 2, 4)]
    for away, weight in steps:
        for down, right in [(0, away), (away, 0), (away, away), (away, -away)]:
            nearer = (_beside(depth, down, right) + _beside(depth, -down, -right)) / 2 - depth
            total += weight / 4 * (nearer / (STEEPEST * away * unit)).clip(0, 1)
    return total / sum(weight for _, weight in steps)


def _beside(depth: np.ndarray, down: int, right: int) -> np.ndarray:
    """The depth so many pixels away; where no point is there, that of the pixel itself."""
    room = max(abs(down), abs(right))
    (height, width), top, left = depth.shape, room + down, room + right
    other = np.pad(depth, room, constant_values=BEHIND)[top : top + height, left : left + width]
    return np.where(other == BEHIND, depth, other)


def under_the_sky(pos: np.ndarray) -> np.ndarray:
    """The light on points that are seen from all sides: darker where others stand above. [N]

    Roofs, tree tops and open ground are bright; what lies beside a wall or in a tree is not.

    Args:
        pos: Positions ``[N, 3]``, the second axis up.
    """
    from scipy.spatial import cKDTree

    flat = pos[:, [0, 2]]
    away, near = cKDTree(flat).query(flat, k=range(1, min(24, len(pos)) + 1))
    rise = (pos[near, 1] - pos[:, 1:2]).clip(0)  # [N, k]
    above = (rise / (rise + away + 1e-9)).mean(axis=1)
    return 1 - SHADIEST * (2 * above).clip(0, 1)
