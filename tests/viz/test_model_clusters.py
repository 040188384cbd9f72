from __future__ import annotations

from importlib import import_module

import torch
from matplotlib.image import imread
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.viz import model_clusters


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

    module = import_module("pointcluster.viz.model_clusters")
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
