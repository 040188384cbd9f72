from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster.viz import draw
from pointcluster.viz.shading import FEW, eye_dome, under_the_sky

from .conftest import cluster

LOW, HIGH = np.array([-1.0, -1.0]), np.array([1.0, 1.0])


def plane(count, near, seed=0):
    """Points of a square at one nearness."""
    pos = np.random.default_rng(seed).uniform(-0.8, 0.8, (count, 3))
    pos[:, 2] = near
    return pos


def test_a_plane_has_its_own_colour_and_the_rest_is_white():
    colour = np.tile([0.2, 0.4, 0.6], (5000, 1))
    (image,) = eye_dome(plane(5000, 0.0), colour[None], (80, 60), LOW, HIGH)
    assert image.shape == (60, 80, 3) and image.dtype == np.uint8
    away = np.abs(image[20:40, 20:60] - 255 * colour[0]).max(axis=2)
    assert (away <= 1).mean() > 0.97
    assert (image[:4] == 255).all() and (image[:, :4] == 255).all()


def test_a_slope_has_its_own_colour():
    pos = plane(20_000, 0.0)
    pos[:, 2] = 1.4 * pos[:, 1]
    (image,) = eye_dome(pos, np.full((1, len(pos), 3), 0.8), (80, 60), LOW, HIGH)
    assert 0.9 * 204 < image[20:40, 20:60].mean() <= 204


def test_what_stands_beside_a_wall_is_in_the_shade():
    rng = np.random.default_rng(0)
    pos = rng.uniform(-1, 1, (3000, 3)) * [10, 0.001, 10]
    pos[:, 1] += 5.0 * (pos[:, 0] > 0)  # a terrace, the second axis up
    light = under_the_sky(pos)
    assert light[pos[:, 0] > 0].min() > 0.95 and light[pos[:, 0] < -3].min() > 0.95
    assert light[np.abs(pos[:, 0] + 0.2) < 0.2].mean() < 0.7
    assert (under_the_sky(np.zeros((3, 3))) == 1).all() and under_the_sky(pos[:1]) == 1


def test_the_nearest_point_is_seen_and_darkens_what_lies_behind():
    back, front = plane(5000, -0.5), plane(2000, 0.5, 1)
    front[:, :2] *= 0.5  # a square before the other, which reaches from -0.4 to 0.4
    points = np.concatenate([front, back])
    white, red = np.full((5000, 3), 0.9), np.tile([1.0, 0.0, 0.0], (2000, 1))
    colours = np.stack([np.concatenate([red, white]), np.concatenate([white[:2000], white])])
    first, second = eye_dome(points, colours, (100, 100), LOW, HIGH)
    assert (first[45:55, 45:55] == [255, 0, 0]).all(axis=2).mean() > 0.98
    beside, farther = second[35:65, 28].mean(), second[35:65, 20].mean()
    assert beside < 0.8 * farther and farther > 220


def test_top_is_up_and_many_panels_are_of_the_same_points():
    points = np.array([[-0.5, 0.5, 0.0], [0.5, -0.5, 0.0]])
    colours = np.array([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]]], dtype=float)
    first, second = eye_dome(points, colours, (40, 40), LOW, HIGH)
    corners = [(slice(8, 12),) * 2, (slice(28, 32),) * 2]
    for image, expected in zip((first, second), colours, strict=True):
        for corner, colour in zip(corners, expected, strict=True):
            assert (image[corner] == 255 * colour).all(axis=2).any()


@pytest.mark.parametrize("pos", [np.zeros((1, 3)), np.zeros((3, 3)), np.ones((2, 3)) * 5])
def test_tiny_and_coincident_clouds_and_such_beside_the_frame(pos):
    assert eye_dome(pos, np.zeros((1, len(pos), 3)), (10, 12), LOW, HIGH).shape == (1, 12, 10, 3)


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_many_points_are_shaded_if_nothing_else_is_said(count):
    pos = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    found = cluster((pos[:, 0] > 0.5).long(), pos, [[0.2, 0.5, 0.5], [0.8, 0.5, 0.5]])

    def is_dots(**look):
        return not draw(Data(pos=pos), found, **look).figure.axes[0].images

    assert is_dots() == (count == FEW)
    assert is_dots(shading=False) and not is_dots(shading=True)
    picture = draw(Data(pos=pos), found, shading=True, centers=False)
    (panel,), pixels = picture.panels, picture.array()
    row, column = np.rint(panel.where).astype(int).T
    seen = pixels[row, column] / 255
    # What is seen at a point is its colour or, of one behind, the other's: darker, but the same.
    hue = seen / np.maximum(seen.max(axis=1, keepdims=True), 1e-9)
    own = panel.colour / panel.colour.max(axis=1, keepdims=True)
    assert (np.abs(hue - own).max(axis=1) < 0.1).mean() > 0.7
