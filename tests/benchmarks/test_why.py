from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.geometry import lattice_geometry
from pointcluster.nn import ContextClusterBlock


@torch.no_grad()
def test_a_block_is_looked_at_as_the_operator_sees_it(script):
    why = script("why")
    torch.manual_seed(0)
    geometry = lattice_geometry((8, 8), fold=2)
    block = ContextClusterBlock(6, heads=2, head_channels=3, num_centers=4, k=None, layer_scale=0.5)
    x = torch.randn(2 * 64, 6)
    found = why.looked_at(block, x, x, geometry)
    y, clusters = block.cluster(x, geometry, return_clusters=True)
    index = clusters.index.view(-1, 16, 2).transpose(1, 2) % 4  # [R, H, P]
    assert torch.equal(found["index"], index)
    window = geometry.parts[0].regions.pooling(x.dtype)[0].argmax(dim=0)
    assert found["near"] == pytest.approx(float((index == window).float().mean()))
    assert found["branch"] == pytest.approx(float(y.norm() / x.norm() / 2))
    mean = why.RegionMean(block.cluster)(x, geometry)
    share = float(mean.square().sum() / y.square().sum())
    assert found["mean"] == pytest.approx(share, rel=1e-4) and 0 < share < 1
    assert 0 < found["common"] < 1
    script("mixers").centred(block.cluster)
    _, clusters = block.cluster(x, geometry, return_clusters=True)
    index = clusters.index.view(-1, 16, 2).transpose(1, 2) % 4
    found = why.looked_at(block, x, x, geometry)
    assert torch.equal(found["index"], index) and found["common"] == pytest.approx(0, abs=1e-6)
    assert 0 < found["doubt"] < 1 and 0 < found["use"] <= 1 and found["margin"] > 0


@pytest.mark.slow
def test_a_short_training_leaves_a_page_and_a_picture(run, script, monkeypatch, tmp_path):
    why = script("why")
    recipe = script("mixers").Recipe(batch_size=4)
    monkeypatch.setattr(why.Pictures, "recipe", recipe)
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        folder = tmp_path / "cifar" / part / "cat"
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    page, _ = run("why", "--cifar10", str(tmp_path / "cifar"), "--epochs", "1", "--looks", "1",
                  "--save", str(tmp_path / "net"))  # fmt: skip
    assert "| stages.4.0 |" in page and "region's mean" in page
    records = json.loads((tmp_path / "why.json").read_text())[
        "CIFAR-10, coc_micro, clusters, 1 epochs"
    ]["records"]
    assert [record["epoch"] for record in records] == [0, 0.5]
    assert records[1]["blocks"]["stages.0.0"]["moved"] is not None
    assert (tmp_path / "why.png").is_file() and (tmp_path / "net.safetensors").is_file()
