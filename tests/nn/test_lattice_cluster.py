"""The context cluster on a lattice: its paths agree with one another and with plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointcluster.geometry import lattice_geometry
from pointcluster.nn import ContextCluster
from pointcluster.ops.context_cluster import dense


def layer(centers, **options):
    torch.manual_seed(0)
    made = ContextCluster(
        10, heads=3, head_channels=5, num_centers=centers**2, k=None, **options
    ).double()
    with torch.no_grad():
        made.alpha.fill_(2.0)
        made.beta.fill_(-0.3)
    return made


def by_loops(layer, image, fold, centers):
    """Regions, adaptive average pooling and one point after another."""
    _, height, width = image.shape
    fv = layer.fv(image.flatten(1).t())
    half = fv.size(1) // 2
    out = torch.zeros(height * width, half, dtype=image.dtype)
    cuts = [[i * n // min(fold, n) for i in range(min(fold, n) + 1)] for n in (height, width)]
    place = torch.arange(height * width).view(height, width)
    for top, bottom in zip(cuts[0], cuts[0][1:], strict=False):
        for left, right in zip(cuts[1], cuts[1][1:], strict=False):
            region = place[top:bottom, left:right]
            part = fv[region.flatten()].t().view(1, -1, *region.shape)
            pooled = F.adaptive_avg_pool2d(part, centers).flatten(2)[0].t()  # [M, 2W]
            for head in range(layer.heads):
                at = slice(head * layer.head_channels, (head + 1) * layer.head_channels)
                c, g = pooled[:, :half][:, at], pooled[:, half:][:, at]
                f, v = fv[region.flatten()][:, :half][:, at], fv[region.flatten()][:, half:][:, at]
                cos = F.cosine_similarity(f[:, None], c[None], dim=2)
                s, a = torch.sigmoid(layer.beta + layer.alpha * cos).max(dim=1)
                for m in range(len(c)):
                    mine = a == m
                    h = (g[m] + (s[mine, None] * v[mine]).sum(0)) / (1 + s[mine].sum())
                    out[region.flatten()[mine], at] = s[mine, None] * h
    return layer.proj(out)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5)])
@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("centers", [1, 2, 4])
def test_agrees_with_loops(size, fold, centers):
    made = layer(centers)
    images = torch.randn(2, 10, *size, dtype=torch.float64)
    geometry = lattice_geometry(size, fold=fold, centers=centers)
    x = geometry.from_rows(images.permute(0, 2, 3, 1))
    with torch.no_grad():
        y, clusters = made(x, geometry, return_clusters=True)
        y = geometry.to_rows(y).flatten(1, 2)
        for image, found in zip(images, y, strict=True):
            if min(size) // fold < centers:
                continue  # windows repeat, and rounding chooses in the loops
            truth = by_loops(made, image, fold, centers)
            torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)
    assert torch.equal(clusters.index // centers**2, clusters.region[:, None].expand(-1, 3))
    assert torch.equal(
        clusters.region[clusters.center], torch.arange(len(clusters.center)) // centers**2
    )


@pytest.mark.parametrize("centers", [2, 3])
def test_lifting_changes_nothing(centers, monkeypatch):
    made = layer(centers)
    geometry = lattice_geometry((12, 12), fold=2, centers=centers)
    x = torch.randn(288, 10, dtype=torch.float64, requires_grad=True)
    answers = []
    for pays in (True, False):
        monkeypatch.setattr(dense, "lifting_pays", lambda *_, pays=pays: pays)
        y, clusters = made(x, geometry, return_clusters=True)
        inputs = [x, *made.parameters()]
        answers.append([y, clusters.similarity, *torch.autograd.grad(y.square().sum(), inputs)])
    for a, b in zip(*answers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_storing_and_back():
    for size, fold in [((6, 8), 2), ((7, 9), 2), ((7, 9), 3), ((5, 5), 1), ((2, 3), 8)]:
        geometry = lattice_geometry(size, fold=fold)
        x = torch.randn(2, *size, 3)
        assert torch.equal(geometry.to_rows(geometry.from_rows(x)), x)
        assert geometry is lattice_geometry(size, fold=fold)  # remembered


def test_what_does_not_fit():
    geometry = lattice_geometry((6, 6), fold=2, centers=2)
    made = layer(2)
    with pytest.raises(ValueError, match=r"\[36, 10\]"):
        made(torch.zeros(37, 10).double(), geometry)
    with pytest.raises(ValueError, match="has 4 centres"):
        layer(3)(torch.zeros(36, 10).double(), geometry)
    with pytest.raises(ValueError, match="without k"):
        made(torch.zeros(36, 10).double(), torch.zeros(36, 2).double())
    with pytest.raises(ValueError, match="fold must be at least 1"):
        lattice_geometry((6, 6), fold=0)


@pytest.mark.parametrize(
    ("size", "plan"), [((12, 9), (3, 2, 1)), ((9, 8), (4, 4, 0)), ((2, 1), (4, 4, 0))]
)
def test_a_reducer_that_is_watched_is_called(size, plan):
    from pointcluster.geometry import LatticePlan, lattice_hierarchy
    from pointcluster.nn import PointReducer

    (stage,) = lattice_hierarchy(size, [LatticePlan(*plan, 2, 2)])
    layer = PointReducer(5, 7, k=plan[0] ** 2, num=1 / plan[1] ** 2, dim=0).double()
    image = torch.randn(2, 5, *size, dtype=torch.float64)
    plain, called = layer(image, stage), []
    layer.linear.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(layer(image, stage), plain, rtol=0, atol=1e-12)
    assert called == [1]
