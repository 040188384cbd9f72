from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch_geometric.data import Batch, Data

from pointcluster.geometry import lattice_geometry
from pointcluster.models import create_model
from pointcluster.nn import ContextCluster


@pytest.fixture
def clouds():
    """Two clouds of different sizes, so that regions differ, too."""
    generator = torch.Generator().manual_seed(0)
    sizes = (100, 61)
    return Batch.from_data_list([Data(pos=torch.rand(n, 3, generator=generator)) for n in sizes])


def test_every_mixer_is_another_network_that_trains(script, clouds):
    mixers = script("mixers")
    inputs = {"coc_micro": torch.rand(2, 3, 32, 32), "point_coc_tiny": clouds}
    for network, data in inputs.items():
        seen = {}
        for name in mixers.MIXERS:
            if name in mixers.LATTICES and network != "coc_micro":
                continue
            torch.manual_seed(0)
            model = mixers.with_mixer(create_model(network, num_classes=5), name)
            seen[name] = model.eval()(data).detach()
            model.train()(data).logsumexp(dim=1).sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert torch.equal(seen.pop("frozen"), seen["clusters"])  # as long as nothing was learned
        assert len({tuple(logits.flatten().tolist()) for logits in seen.values()}) == len(seen)


def test_mixers_stay_inside_regions_and_say_what_they_are_called(script):
    mixers = script("mixers")
    layer = ContextCluster(6, heads=2, head_channels=3, num_centers=2, k=3, region_size=16).double()
    x, pos = torch.randn(41, 6).double(), torch.randn(41, 3).double()
    geometry = layer.geometry(pos)
    region = torch.empty(41, dtype=torch.int64)
    region[geometry.order] = geometry.regions.region(41)
    mean, attention = mixers.Mean(layer).double(), mixers.Attention(layer).double()
    found = mean(x, geometry)
    for number in region.unique():
        here = region == number
        expected = layer.proj(mean.v(x[here]).mean(dim=0))
        torch.testing.assert_close(found[here], expected.expand(int(here.sum()), -1))
        q, k = attention.qk(x[here]).unflatten(1, (2, 2, 3)).unbind(1)
        v = attention.v(x[here]).unflatten(1, (2, 3))
        share = (torch.einsum("nhc,mhc->hnm", q, k) / 3**0.5).softmax(dim=2)
        expected = layer.proj(torch.einsum("hnm,mhc->nhc", share, v).flatten(1))
        torch.testing.assert_close(attention(x, geometry)[here], expected)


def test_a_varied_operator_differs_in_its_step_alone(script):
    mixers = script("mixers")
    layer = ContextCluster(6, heads=2, head_channels=3, num_centers=2, k=3, region_size=16).double()
    x, pos = torch.randn(41, 6).double(), torch.randn(41, 3).double()
    plain, (_, clusters) = layer(x, pos), layer(x, pos, return_clusters=True)
    torch.testing.assert_close(mixers.varied("")(layer)(x, pos), plain)
    torch.testing.assert_close(mixers.varied("soft")(layer).train()(x, pos), plain)
    torch.testing.assert_close(layer.eval()(x, pos), plain)
    y, changed = mixers.varied("offset")(layer)(x, pos, return_clusters=True)
    assert torch.equal(changed.index, clusters.index) and not torch.allclose(y, plain)
    y, changed = mixers.varied("twice")(layer)(x, pos, return_clusters=True)
    assert not torch.equal(changed.index, clusters.index)


def test_placed_values_depend_on_where_in_its_region_a_point_lies(script):
    mixers = script("mixers")
    torch.manual_seed(0)
    layer = ContextCluster(6, heads=2, head_channels=3, num_centers=4, k=None).double()
    geometry = lattice_geometry((8, 8), fold=2)
    x = torch.randn(64, 6).double()
    plain = layer(x, geometry)
    layer = mixers.placed(layer).double()
    moved = layer(x, geometry)
    assert not torch.allclose(moved, plain)
    # The same map in another region of the picture gives the same: places count inside of regions.
    torch.testing.assert_close(layer(x.roll(16, 0), geometry), moved.roll(16, 0))
    for way in layer.places:
        torch.nn.init.zeros_(way[2].weight)
        torch.nn.init.zeros_(way[2].bias)
    torch.testing.assert_close(layer(x, geometry), plain)


def test_shifted_regions_are_those_of_a_moved_picture(script):
    mixers = script("mixers")
    torch.manual_seed(0)
    layer = ContextCluster(6, heads=2, head_channels=3, num_centers=4, k=None).double()
    geometry = lattice_geometry((8, 8), fold=2)
    x = torch.randn(2, 8, 8, 6).double()
    rows = layer(geometry.from_rows(x.roll((-2, -2), (1, 2))), geometry)
    expected = geometry.to_rows(rows).roll((2, 2), (1, 2))
    found = mixers.shifted(layer)(geometry.from_rows(x), geometry, residual=geometry.from_rows(x))
    torch.testing.assert_close(geometry.to_rows(found), x + expected)


def test_frozen_similarity_learns_nothing(script):
    layer = script("mixers").frozen(ContextCluster(6, heads=2, head_channels=3, k=3))
    layer(torch.randn(20, 6), torch.randn(20, 3)).square().sum().backward()
    assert not layer.fv.weight.grad[:6].any() and layer.fv.weight.grad[6:].any()
    assert not layer.alpha.grad.any() and not layer.beta.grad.any()


def test_intervals_draw_items_and_seeds(script):
    interval = script("mixers").interval
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)
    random = np.random.default_rng(0)
    items = random.normal(0.5, 1, 400)
    mean, low, high = interval(items)
    assert low < mean < high and abs((high - low) / 2 - 1.96 / 20) < 0.02
    two = interval(np.stack([items - 1, items + 1]))
    assert two[0] == pytest.approx(mean) and two[2] - two[1] > 4 * (high - low)
    weighted = interval([[0.0, 1.0]], weights=[3, 1])
    assert weighted[0] == pytest.approx(0.25)


@pytest.mark.slow
def test_a_short_run_leaves_a_page_and_is_not_run_again(run, script, monkeypatch, tmp_path):
    mixers = script("mixers")
    recipe = mixers.Recipe(batch_size=4)
    monkeypatch.setattr(mixers.Pictures, "recipe", recipe)
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 3)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "cifar" / part / kind
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    options = ["--cifar10", str(tmp_path / "cifar"), "--epochs", "1", "--seeds", "2",
               "--mixers", "clusters", "nothing"]  # fmt: skip
    page, printed = run("mixers", *options)
    assert "## CIFAR-10, coc_micro, 1 epochs" in page and "| clusters | 2 |" in page
    runs = json.loads((tmp_path / "mixers.json").read_text())
    assert len(runs) == 4 and runs[0]["steps"] == 2 and len(runs[0]["hits"]) == 6
    again, printed = run("mixers", *options)
    assert again == page and "{" not in printed


@pytest.mark.slow
def test_scans_and_folds(script, monkeypatch):
    mixers = script("mixers")
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(900, 3, generator=generator) * 90
    scene = Data(pos=pos, x=torch.rand(900, 4, generator=generator), y=(pos[:, 2] > 45).long())
    scene.y[:100] = -1

    class Tiles(list):
        classes, in_channels = ["low", "high"], 4

    monkeypatch.setattr(mixers, "LidarHD", lambda folder, split="train": Tiles([scene]))
    monkeypatch.setattr(mixers.Scans, "recipe", mixers.SceneRecipe(num_points=128, batch_size=2))
    scans = mixers.Scans(None, "point_coc_tiny_seg")
    found = mixers.run([scans], "mean", 0, {"epochs": 0.5})
    assert sum(found["of"]) == 800 and len(found["of"]) == 4 and 0 < found["miou"] < 1
    folds = [mixers.Clouds(8, fold, points=32) for fold in (0, 1)]
    found = mixers.run(folds, "nothing", 0, {"epochs": 0.05})
    assert len(found["hits"]) == len(folds[0].test) + len(folds[1].test)
