from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import cluster
from torch_geometric.data import Data

from pointcluster.viz.palette import PALETTE
from pointcluster.viz.scene import make_scene, make_scenes, painted, pixels


def test_a_cluster_keeps_its_colour_where_it_has_another_number(cloud):
    data, found = cloud
    renamed = found._replace(index=3 - found.index)
    scene = make_scene(data, {"a": found, "b": renamed}, head=1)
    first, second = scene.panels
    assert (first.title, second.title) == ("a, head 1", "b, head 1")
    np.testing.assert_array_equal(painted(scene, first), painted(scene, second))
    # ... and along a sequence; half of what was one keeps its colour
    steps = make_scenes(data, [found.of_head(0), found.of_head(1)])
    colours = [painted(each, each.panels[0]) for each in steps]
    same = (colours[0] == colours[1]).all(axis=1)
    assert 120 < same.sum() < 180


def test_opacity_borders_and_highlight(cloud):
    data, found = cloud
    data.color = torch.rand(300, 3)
    full = make_scene(data, found, head=0)
    own = data.color.numpy()
    base = painted(full, full.panels[0])
    half = make_scene(data, found, head=0, opacity=0.5)
    np.testing.assert_allclose(painted(half, half.panels[0]), 0.5 * base + 0.5 * own, atol=1e-6)
    edge = make_scene(data, found, head=0, borders=True)
    darker = (painted(edge, edge.panels[0]) < base).any(axis=1)
    assert 0 < darker.sum() < 150
    assert np.abs(data.pos.numpy()[darker, 0]).max() < 0.3  # near the plane between the regions
    chosen = make_scene(data, found, head=0, highlight=-1)
    one = painted(chosen, chosen.panels[0])
    inside = (found.index[:, 0] == found.index[-1, 0]).numpy()
    np.testing.assert_array_equal(one[inside], base[inside])
    assert (np.ptp(one[~inside], axis=1) < 1e-12).all() and one[~inside].min() > 0.39


def test_pictures_show_the_colours_of_their_points(picture):
    image, found = picture
    scene = make_scene(image, found, opacity=1)
    (panel,) = scene.panels
    values = pixels(scene, panel).reshape(-1, 3)
    index = found.index[:, 0].numpy()
    for m in range(4):
        assert len(np.unique(values[index == m], axis=0)) == 1
    assert len(np.unique(values, axis=0)) == 4
    np.testing.assert_allclose(pixels(scene), image.permute(1, 2, 0), atol=1e-7)


def test_empty_centres_and_those_of_other_clouds():
    pos = torch.rand(10, 3)
    found = cluster([2] * 5 + [5] * 5, pos, torch.rand(7, 3))
    found = found._replace(center_batch=torch.tensor([0, 0, 0, 0, 1, 1, 1]))
    found = found._replace(batch=torch.tensor([0] * 5 + [1] * 5))
    data = Data(pos=pos, batch=found.batch)
    (panel,) = make_scene(data, found, cloud=1).panels
    assert panel.center.tolist() == [5] and panel.index.tolist() == [0] * 5
    assert panel.center_cluster.tolist() == [-1, 0, -1] and len(panel.center_pos) == 3
    assert panel.colour.max() < len(PALETTE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head": 2}, IndexError, "there is no head number 2: choose 0 to 1"),
        ({"highlight": 300}, IndexError, "no point number 300: choose 0 to 299"),
        ({"opacity": 1.5}, ValueError, "opacity is 1.5, expected 0 to 1"),
        ({"up": "w"}, ValueError, "up is 'w'"),
        ({"cloud": 1}, IndexError, "no cloud number 1: there is only 0"),
    ],
)
def test_keywords_that_make_no_sense(cloud, options, error, message):
    with pytest.raises(error, match=message):
        make_scene(*cloud, **options)


def test_clusters_that_do_not_belong_to_the_data(cloud, picture):
    with pytest.raises(ValueError, match="of now are of 300 points, the data has 600"):
        make_scene(picture[0], {"now": cloud[1]})
    with pytest.raises(TypeError, match="found Tensor"):
        make_scene(cloud[0], cloud[1].index)
    with pytest.raises(ValueError, match="no clusters"):
        make_scene(cloud[0], {})
    with pytest.raises(TypeError, match="colour"):
        make_scene(*cloud, colour="red")
