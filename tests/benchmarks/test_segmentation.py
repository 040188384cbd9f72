from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model


def scene(size=400, channels=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(size, 3, generator=generator, dtype=dtype) * 40
    return Data(pos=pos, x=torch.randn(size, channels, generator=generator, dtype=dtype))


def test_pointnet2_tells_every_point_and_sees_clouds_alone(script):
    torch.manual_seed(0)
    model = script("segmentation").PointNet2(5, 2).double().eval()
    parts = [scene(200, dtype=torch.float64), scene(90, dtype=torch.float64)]
    together = model(Batch.from_data_list(parts)).split([200, 90])
    for rows, part in zip(together, parts, strict=True):
        alone = model(Batch.from_data_list([part]))
        assert rows.shape == (len(part.pos), 5)
        torch.testing.assert_close(alone, rows)


def test_without_clusters_a_block_is_its_mlp(script):
    torch.manual_seed(0)
    model = create_model("point_coc_tiny_seg", num_classes=3, in_channels=2).eval()
    with_them = model(scene())
    count = sum(p.numel() for p in model.parameters())
    script("segmentation").without_clusters(model)
    without = model(scene())
    assert without.shape == with_them.shape and not torch.allclose(without, with_them)
    assert sum(p.numel() for p in model.parameters()) < count
    model.train()(scene()).sum().backward()


def test_shapes_of_neighbourhoods(script):
    generator = torch.Generator().manual_seed(0)
    line = torch.zeros(300, 3)
    line[:, 0] = torch.linspace(0, 30, 300)
    plane = torch.rand(300, 3, generator=generator) * torch.tensor([10.0, 10.0, 0.001])
    ball = torch.randn(300, 3, generator=generator)
    for pos, column in ((line, 0), (plane, 1), (ball, 2)):
        found = script("segmentation").eigenvalue_features(Data(pos=pos))
        assert found.shape == (300, 24) and np.isfinite(found).all()
        assert found[:, [8, 9, 10]].mean(axis=0).argmax() == column or column == 2
    assert found[:, 10].mean() > 0.2  # scattering of a ball, among 30 neighbours


@pytest.mark.slow
def test_a_short_run_leaves_a_page_and_is_not_run_again(run, script, monkeypatch, tmp_path):
    module = script("segmentation")

    class Small(list):
        classes, in_channels = ["ground", "other"], 2

        def __init__(self, split):
            data = scene(1500)
            data.y = (data.pos[:, 2] > 20).long()
            super().__init__([data])

    monkeypatch.setattr(module.datasets, "Autzen", Small)
    options = ["--minutes", "0.02", "--seeds", "1", "--num-points", "256",
               "--only", "point_coc_tiny_seg", "PointNet++"]  # fmt: skip
    page, printed = run("segmentation", *options)
    assert "| point_coc_tiny_seg | 1 |" in page and "| PointNet++ | 1 |" in page
    assert printed.count("mIoU") == 2
    runs = json.loads((tmp_path / "segmentation.json").read_text())
    assert len(runs) == 2 and runs[0]["steps"] >= 1
    again, printed = run("segmentation", *options)
    assert printed == "" and "| PointNet++ | 1 |" in again
