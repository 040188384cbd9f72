from __future__ import annotations

import math

import numpy as np
import pytest

from pointcluster.viz.camera import MARGIN, View, plotly_camera, project, reach, reach_of_turns


def test_up_is_up_and_near_is_near():
    corners = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0.0]])
    screen, depth = project(corners)
    assert screen[0, 1] > 0.9 and abs(screen[0, 0]) < 1e-9
    assert depth[2] > depth[3]
    assert screen[4, 0] > screen[5, 0]
    assert np.allclose(np.linalg.norm(np.c_[screen, depth], axis=1), 1)


@pytest.mark.parametrize("stretch", [[1, 1, 1], [4, 1, 1], [1, 9, 1], [1, 1, 0.01]])
def test_a_cloud_fills_its_frame_but_for_a_margin(stretch):
    pos = np.random.default_rng(0).normal(size=(500, 3)) * stretch
    screen, _ = project(pos)
    for slimmest in (0.0, 0.6, 1.0):
        low, high = reach(screen, slimmest)
        free = np.concatenate([screen.min(axis=0) - low, high - screen.max(axis=0)])
        longest = (high - low).max()
        assert free.min() > 0 and free.min() < 1.5 * MARGIN * longest
        assert (high - low).min() >= slimmest * longest - 1e-9
    low, high = reach_of_turns(pos, View())
    for turn in (0, 77, 200):
        turned, _ = project(pos, View(turn=turn))
        assert (turned > low).all() and (turned < high).all()


@pytest.mark.parametrize("up", ["x", "y", "z", "-z"])
@pytest.mark.parametrize("wide", [1.0, 2.0])
@pytest.mark.parametrize("stretch", [[1, 1, 1], [5, 1, 1], [1, 9, 1], [1, 1, 0], [0, 0, 0]])
def test_plotly_sees_the_whole_cloud_and_little_else(up, wide, stretch):
    pos = np.random.default_rng(0).uniform(-1, 1, size=(500, 3)) * stretch + [1e3, 5e3, 100]
    scene = plotly_camera(pos, View(up), wide)
    assert scene["camera"]["up"]["xyz"["xyz".index(up[-1])]] == (-1 if up[0] == "-" else 1)
    # As Plotly's program does: into a box of the aspect, then through a lens of 45 degrees.
    low, high = np.array([scene[f"{axis}axis"]["range"] for axis in "xyz"]).T
    aspect, top, center, eye = (
        np.array([values[axis] for axis in "xyz"])
        for values in [scene["aspectratio"], *(scene["camera"][n] for n in ("up", "center", "eye"))]
    )
    box = ((pos - low) / (high - low) - 0.5) * aspect
    front = (center - eye) / np.linalg.norm(center - eye)
    right = np.cross(front, top) / np.linalg.norm(np.cross(front, top))
    away = (box - eye) @ front
    x = (box - eye) @ right / away / math.tan(math.pi / 8) / wide
    y = (box - eye) @ np.cross(right, front) / away / math.tan(math.pi / 8)
    assert (away > 0).all() and max(np.abs(x).max(), np.abs(y).max()) <= 1 - MARGIN
    if any(stretch):
        assert max(np.abs(x).max(), np.abs(y).max()) == pytest.approx(1 - 2 * MARGIN)
        assert max(abs(x.min() + x.max()), abs(y.min() + y.max())) < 0.05  # in the middle
