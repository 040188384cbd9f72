"""From where a cloud is looked at, and what of the frame it fills."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

UP = ("x", "y", "z", "-x", "-y", "-z")
"""Axes that can point up."""
MARGIN = 0.05
"""Of the frame, what a cloud leaves free at every side."""
ANGLE = math.pi / 4
"""Plotly's camera sees this far from the bottom to the top."""


class View(NamedTuple):
    """Where the eye is: at the front right and above, if nothing else is said."""

    up: str = "y"
    """The axis that points up, or down with a minus."""
    turn: float = 35.0
    """Degrees about that axis."""
    tilt: float = 20.0
    """Degrees from above."""

    def axes(self) -> np.ndarray:
        """Right, up and toward the eye, as rows. [3, 3]"""
        a, b = math.radians(self.turn), math.radians(self.tilt)
        right = np.array([math.cos(a), 0, -math.sin(a)])
        toward = np.array([math.sin(a) * math.cos(b), math.sin(b), math.cos(a) * math.cos(b)])
        return np.stack([right, np.cross(toward, right), toward]) @ upright(np.eye(3), self.up).T


FRONT = View()


def in_space(pos: np.ndarray, picture: bool) -> np.ndarray:
    """Positions with three axes; (row, column) become right and up. [n, 3]"""
    if pos.shape[1] == 3:
        return pos
    flat = np.stack([pos[:, 1], -pos[:, 0]], axis=1) if picture else pos
    return np.concatenate([flat, np.zeros((len(pos), 1))], axis=1)


def upright(pos: np.ndarray, up: str) -> np.ndarray:
    """Turn positions such that the second axis points up, and what was right-handed stays so."""
    pos = np.roll(pos, 1 - "xyz".index(up[-1]), axis=1)
    return pos * [1, -1, -1] if up[0] == "-" else pos


def project(
    pos: np.ndarray, view: View = FRONT, frame: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where points appear on the screen ``[P, 2]``, and how near they are to the eye ``[P]``.

    Args:
        pos: Positions ``[P, 3]``; or ``[P, 2]``, which lie in the paper.
        view: Where the eye is.
        frame: Points that are centred and scaled to the unit circle; by default the same.
    """
    frame = pos if frame is None else frame
    middle = (frame.max(axis=0) + frame.min(axis=0)) / 2
    pos = (pos - middle) / max(float(np.linalg.norm(frame - middle, axis=1).max()), 1e-9)
    if pos.shape[1] == 2:
        return pos, np.zeros(len(pos))
    pos = pos @ view.axes().T
    return pos[:, :2], pos[:, 2]


def nearness(depth: np.ndarray) -> np.ndarray:
    """0 at the back, 1 at the front. [P]"""
    span = float(np.ptp(depth))
    return (depth - depth.min()) / span if span else np.ones(len(depth))


def reach(screen: np.ndarray, slimmest: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest place of a frame that points fill, but for a margin. [2] each

    Args:
        screen: Places on the screen ``[P, 2]``.
        slimmest: The shorter side of the frame is at least this much of the longer.
    """
    low, high = screen.min(axis=0), screen.max(axis=0)
    longest = float((high - low).max())
    room = MARGIN * max(longest, 0.5) + (slimmest * longest - (high - low)).clip(0) / 2
    return low - room, high + room


def reach_of_turns(pos: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The frame that a cloud fills while it turns once about the up axis; as :func:`reach`."""
    turns = [project(pos, view._replace(turn=turn))[0] for turn in range(0, 360, 15)]
    return reach(np.concatenate([[turn.min(axis=0), turn.max(axis=0)] for turn in turns]))


def plotly_camera(pos: np.ndarray, view: View, wide: float = 1.25) -> dict[str, Any]:
    """Plotly's `scene`, without axes, with a camera from which a cloud fills its frame.

    Args:
        pos: Positions ``[P, 3]``.
        view: From where it is seen first.
        wide: Width of the frame, in heights; a wider one has room at the sides.
    """
    low, high = pos.min(axis=0), pos.max(axis=0)
    scale = max(float(np.linalg.norm(high - low)) / 2, 1e-9)
    side = np.maximum(high - low, 1e-3 * scale)  # a flat cloud has room, too
    low, high = (low + high - side) / 2, (low + high + side) / 2
    axes = view.axes()
    middle, distance = _fitted((pos - (low + high) / 2) / scale @ axes.T, wide)
    center = middle @ axes
    places = {
        "up": upright(np.eye(3), view.up).T[1],
        "center": center,
        "eye": center + distance * axes[2],
    }
    ranges = {
        f"{name}axis": {"visible": False, "range": [float(a), float(b)]}
        for name, a, b in zip("xyz", low, high, strict=True)
    }
    return ranges | {
        "aspectmode": "manual",
        "aspectratio": _by_axis(side / scale),
        "dragmode": "orbit",
        "camera": {name: _by_axis(place) for name, place in places.items()},
    }


def _by_axis(values: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", values.tolist(), strict=True))


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
