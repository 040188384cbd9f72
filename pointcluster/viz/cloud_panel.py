"""A cloud on paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

AXES = "xyz"


def project(
    pos: np.ndarray,
    *,
    turn: float = 35.0,
    tilt: float = 20.0,
    up: str = "y",
    frame: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Where points appear to an eye that looks from the front right and above.

    Args:
        pos: Positions ``[P, 3]``; or ``[P, 2]``, which lie in the paper.
        turn: Degrees about the up axis.
        tilt: Degrees from above.
        up: The axis that points up, or down with a minus.
        frame: Points that are centred and scaled to the unit circle; by default the same.

    Shapes and units:
        Returns the place on the screen ``[P, 2]`` and the nearness ``[P]``.
    """
    frame = pos if frame is None else frame
    middle = (frame.max(axis=0) + frame.min(axis=0)) / 2
    pos = (pos - middle) / max(float(np.linalg.norm(frame - middle, axis=1).max()), 1e-9)
    if pos.shape[1] == 2:
        return pos, np.zeros(len(pos))
    x, y, z = upright(pos, up).T
    a, b = math.radians(turn), math.radians(tilt)
    right = math.cos(a) * x - math.sin(a) * z
    front = math.sin(a) * x + math.cos(a) * z
    above = math.cos(b) * y - math.sin(b) * front
    return np.stack([right, above], axis=1), math.sin(b) * y + math.cos(b) * front


def upright(pos: np.ndarray, up: str) -> np.ndarray:
    """Turn positions such that the second axis points up, and what was right-handed stays so."""
    axis = AXES.index(up[-1])
    pos = np.roll(pos, 1 - axis, axis=1)
    return pos * [1, -1, -1] if up[0] == "-" else pos


def paint_cloud(
    axes: Any,
    pos: np.ndarray,
    colour: np.ndarray,
    *,
    rendered: np.ndarray | None = None,
    turn: float = 35.0,
    tilt: float = 20.0,
    up: str = "y",
    front: np.ndarray | None = None,
    marks: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the points of a cloud into axes; those farther from the eye are paler and smaller.

    Args:
        axes: Matplotlib's axes.
        pos: Positions.
        colour: Of each point, from 0 to 1.
        rendered: A picture of the points that fills the axes, instead of dots.
        turn: Degrees about the up axis.
        tilt: Degrees from above.
        up: The axis that points up.
        front: Points that are drawn last and large.
        marks: Positions and colours of marks; those on the far side are left out.

    Shapes and units:
        ``pos [P, 3]`` or ``[P, 2]``, ``colour [P, 3]``, ``front [P]`` boolean, marks ``[M, 3]``.
        Returns where in the axes the points are drawn, ``[P, 2]``, and their colours as they are
        drawn, ``[P, 3]``.
    """
    view: Any = {"turn": turn, "tilt": tilt, "up": up}
    screen, depth = project(pos, **view)
    near = nearness(depth)
    colour = faded(colour, near)
    size = float(np.clip(9000 / len(pos), 0.5, 20)) * (0.6 + 0.6 * near)
    order = np.argsort(depth, kind="stable")  # the front is drawn last
    if front is not None:
        size = np.where(front, 1.8 * size, size)
        order = order[np.argsort(front[order], kind="stable")]
    if rendered is None:
        axes.scatter(
            *screen[order].T, c=colour[order], s=size[order], linewidths=0,
            rasterized=len(pos) > 5000,
        )  # fmt: skip
    else:
        axes.imshow(rendered, extent=(*axes.get_xlim(), *axes.get_ylim()), aspect="auto")
    if marks is not None and len(marks[0]):
        far = depth
        where, depth = project(marks[0], frame=pos, **view)
        seen = depth >= (far.min() + far.max()) / 2
        mark(axes, where[seen], marks[1][seen], float(np.clip(1000 / len(marks[0]), 4, 25)))
    return screen, colour


def nearness(depth: np.ndarray) -> np.ndarray:
    """0 at the back, 1 at the front. [P]"""
    reach = float(np.ptp(depth))
    return (depth - depth.min()) / reach if reach else np.ones(len(depth))


def faded(colour: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Colours that are paler at the back. [P, 3]"""
    return 1 - (1 - colour) * (0.35 + 0.65 * near[:, None])


def mark(axes: Any, where: np.ndarray, colour: np.ndarray, size: float) -> None:
    """Draw rings that show on any ground: dark around white around the colour.

    Args:
        axes: Matplotlib's axes.
        where: Places in the axes.
        colour: What they are filled with.
        size: Of the fillings, in square points.

    Shapes and units:
        ``where [M, 2]``, ``colour [M, 3]``.
    """
    axes.scatter(*where.T, s=2.6 * size, c="0.15", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=2.0 * size, c="white", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=0.8 * size, c=colour, linewidths=0, zorder=4)
