from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.viz import stage_clusters
from pointcluster.viz.borders import contacts
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.scene import make_scene, make_scenes, painted, pixels

from .conftest import cluster


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


def graph_of(panel, contact):
    """Which clusters touch which."""
    one, other = panel.index[contact].T
    graph = np.zeros((len(panel.center),) * 2, dtype=bool)
    graph[one, other] = graph[other, one] = True
    np.fill_diagonal(graph, False)
    return graph


def crowded(graph):
    """Whether in some set of clusters each touches as many of the set as there are colours."""
    left = np.ones(len(graph), dtype=bool)
    while left.any():
        few = left & (graph[:, left].sum(axis=1) < len(PALETTE))
        if not few.any():
            return True
        left &= ~few
    return False


def clusters_near(pos, seeds, region, rng):
    """Points to the nearest of random centres of their region, a few of them to another one."""
    index = np.empty(len(pos), dtype=np.int64)
    for each in np.unique(region):
        own = np.flatnonzero(region == each)
        center = pos[rng.choice(own, seeds)]
        away = np.linalg.norm(pos[own, None] - center, axis=2)
        index[own] = each * seeds + away.argmin(axis=1)
        stray = own[rng.random(len(own)) < 0.005]
        index[stray] = each * seeds + rng.integers(0, seeds, len(stray))
    return index


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["picture", "cloud", "points of a picture"])
def test_clusters_that_touch_never_share_a_colour(kind, seed):
    rng = np.random.default_rng(seed)
    height, width = 30, 40
    pos = np.stack(np.divmod(np.arange(height * width), width), axis=1) / [height, width] - 0.5
    if kind == "cloud":
        pos = np.concatenate([pos, rng.normal(0, 0.1, (len(pos), 1))], axis=1)
    folds = int(rng.integers(1, 4))
    region = ((pos[:, :2] + 0.5) * folds).astype(int) @ [folds, 1]
    steps = {}
    for step in range(3):  # other clusters each, which want the colours of those before
        index = torch.from_numpy(np.stack([
            clusters_near(pos, int(seeds), region, rng) for seeds in rng.integers(2, 8, 2)
        ], axis=1))  # fmt: skip
        found = cluster(index, pos, np.zeros((int(index.max()) + 1, pos.shape[1])))
        steps[f"step {step}"] = found._replace(region=torch.from_numpy(region))
    data = torch.rand(3, height, width)
    if kind == "cloud":
        data = Data(pos=torch.from_numpy(pos))
    elif kind == "points of a picture":
        data = Data(x=data.flatten(1).T, pos=torch.from_numpy(pos), grid=(height, width))
    scene = make_scene(data, steps)
    contact = contacts(scene.subject.pos, scene.subject.shows)
    for panel in scene.panels:
        graph = graph_of(panel, contact)
        assert graph.any() and not crowded(graph)
        same = panel.colour[:, None] == panel.colour
        assert not (graph & same).any()
        of = np.array([region[panel.index == m][0] for m in range(len(graph))])
        graph |= of[:, None] == of
        np.fill_diagonal(graph, False)
        assert crowded(graph) or not (graph & same).any()


@pytest.mark.parametrize("name", ["coc_tiny", "coc_micro", "point_coc_tiny", "point_coc_small"])
def test_clusters_of_networks_that_touch_never_share_a_colour(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    data = torch.rand(1, model.in_channels, 64, 48)
    if name.startswith("point"):
        data = Data(pos=torch.randn(512, 3))
    scene = make_scene(data, stage_clusters(model, data, every_block=True))
    contact = contacts(scene.subject.pos, scene.subject.shows)
    for panel in scene.panels:
        graph = graph_of(panel, contact)
        same = panel.colour[:, None] == panel.colour
        assert crowded(graph) or not (graph & same).any(), panel.title


def test_very_many_points_are_coloured_soon():
    rng = np.random.default_rng(0)
    pos = rng.random((100_000, 3))
    index = (pos * 8).astype(int) @ [64, 8, 1]
    found = cluster(torch.from_numpy(index), pos, np.zeros((512, 3)))
    start = time.process_time()
    scene = make_scene(Data(pos=torch.from_numpy(pos)), {"a": found, "b": found})
    assert time.process_time() - start < 10
    contact = contacts(scene.subject.pos)
    for panel in scene.panels:
        same = panel.colour[:, None] == panel.colour
        assert not (graph_of(panel, contact) & same).any()


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
        ({"head": "x"}, TypeError, "a head is chosen by an integer, found 'x': choose 0 to 1"),
        ({"highlight": 1.5}, TypeError, "a point is chosen by an integer, found 1.5: choose 0 to"),
        ({"cloud": "0"}, TypeError, "a cloud is chosen by an integer, found '0': there is only 0"),
        ({"opacity": "a"}, TypeError, "opacity is 'a', expected a number from 0 to 1"),
        ({"opacity": float("nan")}, ValueError, "opacity is nan, expected 0 to 1"),
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
