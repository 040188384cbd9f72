"""From where a cloud is looked at, and what of the frame it fills."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

AXES = "xyz"
UP = ("x", "y", "z", "-x", "-y", "-z")
"""Axes that can point up."""
TURN, TILT = 35.0, 20.0
"""Degrees about the up axis and from above: an eye at the front right."""
MARGIN = 0.05
"""Of the frame, what a cloud leaves free at every side."""
ANGLE = math.pi / 4
"""Plotly's camera sees this far from the bottom to the top."""


def in_space(pos: np.ndarray, picture: bool) -> np.ndarray:
    """Positions with three axes; (row, column) become right and up. [n, 3]"""
    if pos.shape[1] == 3:
        return pos
    flat = np.stack([pos[:, 1], -pos[:, 0]], axis=1) if picture else pos
    return np.concatenate([flat, np.zeros((len(pos), 1))], axis=1)


def upright(pos: np.ndarray, up: str) -> np.ndarray:
    """Turn positions such that the second axis points up, and what was right-handed stays so."""
    axis = AXES.index(up[-1])
    pos = np.roll(pos, 1 - axis, axis=1)
    return pos * [1, -1, -1] if up[0] == "-" else pos


def project(
    pos: np.ndarray,
    *,
    turn: float = TURN,
    tilt: float = TILT,
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


def reach(screen: np.ndarray, slimmest: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a frame that points on the screen fill, but for a margin.

    Args:
        screen: Places on the screen ``[P, 2]``.
        slimmest: The shorter side of the frame is at least this much of the longer.

    Shapes and units:
        Returns the lowest and the highest place, ``[2]``.
    """
    low, high = screen.min(axis=0), screen.max(axis=0)
    longest = float((high - low).max())
    room = MARGIN * max(longest, 0.5) + (slimmest * longest - (high - low)).clip(0) / 2
    return low - room, high + room


def reach_of_turns(pos: np.ndarray, *, tilt: float, up: str) -> tuple[np.ndarray, np.ndarray]:
    """The frame that a cloud fills while it turns once about the up axis; as :func:`reach`."""
    turns = [project(pos, turn=turn, tilt=tilt, up=up)[0] for turn in range(0, 360, 15)]
    return reach(np.concatenate([[turn.min(axis=0), turn.max(axis=0)] for turn in turns]))


def plotly_camera(
    pos: np.ndarray, up: str, *, turn: float = TURN, tilt: float = TILT, wide: float = 1.25
) -> dict[str, Any]:
    """Plotly's `scene`, without axes, with a camera from which a cloud fills its frame.

    Args:
        pos: Positions ``[P, 3]``.
        up: The axis that points up.
        turn: Degrees about the up axis.
        tilt: Degrees from above.
        wide: Width of the frame, in heights; a wider one has room at the sides.
    """
    low, high = pos.min(axis=0), pos.max(axis=0)
    scale = max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    side = np.maximum(high - low, 1e-3 * scale)  # a flat cloud has room, too
    low, high = (low + high - side) / 2, (low + high + side) / 2
    # What upright() turns to the second axis points up, what it turns to the third to the eye.
    back = np.linalg.inv(upright(np.eye(3), up))
    a, b = math.radians(turn), math.radians(tilt)
    right = np.array([math.cos(a), 0, -math.sin(a)])
    toward = np.array([math.sin(a) * math.cos(b), math.sin(b), math.cos(a) * math.cos(b)])
    view = np.stack([right, np.cross(toward, right), toward]) @ back
    seen = (pos - (low + high) / 2) / scale @ view.T  # right, up, to the eye
    middle, distance = _fitted(seen, wide)
    center = middle @ view
    hidden = {"visible": False}

    def named(values: np.ndarray) -> dict[str, float]:
        return dict(zip(AXES, map(float, values), strict=True))

    axes = {
        f"{name}axis": hidden | {"range": [float(a), float(b)]}
        for name, a, b in zip(AXES, low, high, strict=True)
    }
    return axes | {
        "aspectmode": "manual",
        "aspectratio": named(side / scale),
        "dragmode": "orbit",
        "camera": {
            "up": named(np.array([0, 1, 0]) @ back),
            "center": named(center),
            "eye": named(center + distance * view[2]),
        },
    }


def nearness(depth: np.ndarray) -> np.ndarray:
    """0 at the back, 1 at the front. [P]"""
    span = float(np.ptp(depth))
    return (depth - depth.min()) / span if span else np.ones(len(depth))


def _fitted(seen: np.ndarray, wide: float) -> tuple[np.ndarray, float]:
    """What the eye looks at, and from how far, so that points (right, up, near) fill the frame."""

    def distance() -> float:
        """From where the last of the points comes into view."""
        aside, above = np.abs(seen - middle)[:, :2].T
        away = np.maximum(aside / wide, above) / ((1 - 2 * MARGIN) * math.tan(ANGLE / 2))
        return max(float((seen[:, 2] + away).max()), 0.1)

    middle = (seen.min(axis=0) + seen.max(axis=0)) / 2 * [1, 1, 0]
    for _ in range(8):  # what is near appears large, which moves the middle
        far = distance()
        screen = (seen - middle)[:, :2] / np.maximum(far - seen[:, 2:], 1e-9)
        middle[:2] += far * (screen.min(axis=0) + screen.max(axis=0)) / 2
    return middle, distance()
