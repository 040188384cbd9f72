"""Depth that is seen: eye-dome lighting of a cloud of many points."""

from __future__ import annotations

import math

import numpy as np

FEW = 4000
"""Points up to which a cloud is drawn as dots, if nothing else is said."""
FINER = 2
"""Pixels of a side that become one, so that edges are smooth."""
DEPTH = 0.04
"""Steps in depth from which on a pixel is as dark as it can be; a cloud has a radius of 1."""
DARKEST = 0.8
"""What is taken off the light where all around is nearer."""
BEHIND = np.float32(-1000)
"""The depth where no point is."""


def eye_dome(
    points: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Draw points as discs, darker where what is beside them lies nearer to the eye.

    Boucheny, *Interactive scientific visualization of large datasets: towards a perceptive-based
    approach*, 2009: no normals are needed, only the depth of the picture.

    Args:
        points: Places on the screen, and nearness, in units of the cloud's radius.
        colours: Of the points in each picture.
        size: Width and height in pixels.
        low: What the picture reaches from, along both axes.
        high: What it reaches to.

    Shapes and units:
        ``points [n, 3]``, ``colours [P, n, 3]`` from 0 to 1; returns ``[P, h, w, 3]`` uint8.
    """
    width, height = (FINER * side for side in size)
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
    light = 1 - DARKEST * _nearer_around(depth, max(1, round(radius)))
    out = []
    for painted in colours:
        image = np.where(owner[..., None] >= 0, painted[owner] * light[..., None], 1.0)
        image = image.reshape(size[1], FINER, size[0], FINER, 3).mean(axis=(1, 3))
        out.append(np.rint(255 * image).astype(np.uint8))
    return np.stack(out)


def _nearer_around(depth: np.ndarray, step: int) -> np.ndarray:
    """How much nearer the pixels in eight directions are, close by and farther off: 0 to 1."""
    total = np.zeros_like(depth)
    steps = [(times * step, 1 / times) for times in (1, 2, 4)]
    for away, weight in steps:
        padded = np.pad(depth, away, constant_values=BEHIND)
        for down, right in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            top, left = away * (1 + down), away * (1 + right)
            other = padded[top : top + len(depth), left : left + depth.shape[1]]
            total += (weight / 8 / DEPTH) * (other - depth).clip(0, DEPTH)
    return total / sum(weight for _, weight in steps)
