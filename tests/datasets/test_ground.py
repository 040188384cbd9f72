from __future__ import annotations

import numpy as np
import pytest

from pointcluster.datasets.ground import GroundGrid
from tests.datasets.scans import village


def grid_of(pos, parts=1):
    grid = GroundGrid()
    for part in np.array_split(pos, parts):
        grid.add(part)
    return grid


def test_heights_of_a_village():
    points = village(20_000, edge=200.0)
    height = grid_of(points["pos"]).height(points["pos"])
    ground = points["label"] == 2
    assert np.median(np.abs(height[ground])) < 0.3
    assert height[points["label"] == 6].min() > 1.5  # the slope is 4 m over the scene
    assert height[points["label"] == 6].mean() > 3
    fine = grid_of(points["pos"]).fine_height(points["pos"])
    assert np.median(np.abs(fine[ground])) < 0.1
    assert fine[points["label"] == 6].min() > 1.5


def test_a_slope_lies_on_the_fine_ground():
    generator = np.random.default_rng(0)
    pos = generator.uniform(-100, 100, (30_000, 3))
    pos[:, 2] = 0.15 * pos[:, 0] - 0.05 * pos[:, 1]
    inside = np.abs(pos[:, :2]).max(axis=1) < 60
    grid = grid_of(pos)
    coarse, fine = grid.height(pos)[inside], grid.fine_height(pos)[inside]
    assert np.median(coarse) > 0.5 and np.quantile(np.abs(fine), 0.9) < 0.25
    pos[::50, 2] += 0.6  # low shrubs stay above it
    fine = grid_of(pos).fine_height(pos)
    assert np.median(fine[::50]) - np.median(fine) > 0.4


def test_a_wide_scene_has_the_coarse_ground_alone(monkeypatch):
    grid = grid_of(village(5000)["pos"])
    monkeypatch.setattr("pointcluster.datasets.ground.MOST_FINE_CELLS", 10)
    assert grid.fine_surface() is grid.surface()


def test_parts_in_any_order_are_the_whole():
    pos = village(5000)["pos"]
    whole = grid_of(pos)
    parts = grid_of(pos[np.random.default_rng(0).permutation(5000)], 7)
    assert np.array_equal(whole.cells, parts.cells)
    assert np.array_equal(whole.cells, np.unique(np.floor(pos[:, :2] / 2), axis=0))
    assert np.array_equal(whole.surface(), parts.surface())
    assert np.array_equal(whole.fine_surface(), parts.fine_surface())


def test_holes_and_stray_points():
    pos = village(20_000, edge=200.0)["pos"]
    hole = (abs(pos[:, 0] - pos[:, 0].mean()) < 30) & (abs(pos[:, 1] - pos[:, 1].mean()) < 30)
    stray = pos[~hole].copy()
    stray[5, 2] -= 300
    height = grid_of(stray).height(stray)
    assert np.median(np.abs(height)) < 1 and height[5] < -250
    with pytest.raises(ValueError, match="more than a scene in metres can"):
        far = stray.copy()
        far[0, :2] += 1e7
        grid_of(far).height(far)


def test_one_point():
    pos = np.array([[1.0, 2.0, 3.0]])
    assert grid_of(pos).height(pos) == 0 and abs(grid_of(pos).fine_height(pos)) < 1e-5
