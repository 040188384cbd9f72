from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.viz import cluster_grid, model_clusters


def draw_grid(path, count=5, points=50, **options):
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(points, 3)) for _ in range(count)]
    clusters = [rng.integers(0, 4, points) for _ in range(count)]
    options.setdefault("titles", [f"cloud {i}" for i in range(count)])
    return cluster_grid(path, clouds, clusters, **options)


def test_one_panel_a_cloud(tmp_path):
    path = draw_grid(tmp_path / "new" / "a.png", heading="five clouds", columns=3)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    picture = imread(path)[..., :3]
    height, width = picture.shape[:2]
    assert width == 3 * 360
    for i in range(6):
        row, column = divmod(i, 3)
        top, tall = 70 + row * (height - 70) // 2, (height - 70) // 2
        panel = picture[top : top + int(tall * 0.75), column * 360 : (column + 1) * 360]
        coloured = (np.ptp(panel, axis=-1) > 0.2).mean()
        assert (coloured > 0.003) == (i < 5), i


def test_same_picture_each_time(tmp_path):
    assert draw_grid(tmp_path / "a.png").read_bytes() == draw_grid(tmp_path / "b.png").read_bytes()


def test_global_state_of_matplotlib_is_left_alone(tmp_path):
    draw_grid(tmp_path / "a.png")
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


@pytest.mark.parametrize("points", [1, 2])
def test_tiny_clouds(tmp_path, points):
    assert draw_grid(tmp_path / "a.png", points=points).exists()


def test_mismatched_lengths(tmp_path):
    with pytest.raises(ValueError, match="5 clouds, 5 clusters and 1 titles"):
        draw_grid(tmp_path / "a.png", titles=["one"])
    with pytest.raises(ValueError, match="2 points and 3 cluster numbers"):
        cluster_grid(tmp_path / "a.png", [np.ones((2, 3))], [np.zeros(3)], titles=["a"])


def make_clouds():
    generator = torch.Generator().manual_seed(0)
    return [
        Data(pos=torch.randn(70, 3, generator=generator), y=torch.tensor([label]))
        for label in (2, 2, 2, 0, 1)
    ]


def test_one_cloud_of_each_class_first(tmp_path, monkeypatch):
    seen = {}

    def note(path, clouds, clusters, *, titles, heading):
        seen.update(clouds=clouds, clusters=clusters, titles=titles, heading=heading)

    module = import_module("pointcluster.viz.clusters")
    monkeypatch.setattr(module, "cluster_grid", note)
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=3).eval()
    clouds = make_clouds()
    model_clusters(
        tmp_path / "a.png", model, clouds, classes=["a", "b_c", "d"], heading="h", count=4
    )
    assert [title.split(",")[0] for title in seen["titles"]] == ["a", "b c", "d", "d"]
    assert torch.equal(torch.from_numpy(seen["clouds"][2]), clouds[0].pos)
    assert [len(cluster) for cluster in seen["clusters"]] == [70] * 4
    assert seen["heading"] == "h"


def test_picture(tmp_path):
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=3).eval()
    path = model_clusters(tmp_path / "a.png", model, make_clouds(), classes=["a", "b", "c"])
    assert imread(path).shape[2] == 4
