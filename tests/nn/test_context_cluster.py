from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.geometry import cluster_geometry
from pointcluster.nn import ContextCluster
from tests.nn.truth import loop_cluster

SIZES = [40, 0, 7, 1, 64, 0]


def ragged(sizes=SIZES, dim=3, seed=0, dtype=torch.float64, channels=6):
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.randn(n, dim, generator=generator, dtype=dtype)
    x = torch.randn(n, channels, generator=generator, dtype=dtype)
    return x, pos, batch


def make(dtype=torch.float64, **options):
    torch.manual_seed(0)
    defaults = {"heads": 3, "head_channels": 5, "num_centers": 4, "k": 5, "region_size": 16}
    layer = ContextCluster(6, **(defaults | options)).to(dtype)
    with torch.no_grad():
        layer.alpha.fill_(3.0)
        layer.beta.fill_(-0.5)
    return layer


@pytest.mark.parametrize("sizes", [SIZES, [32, 32], [16]], ids=["ragged", "equal", "one region"])
@pytest.mark.parametrize("region_size", [16, None])
def test_agrees_with_the_loop(sizes, region_size):
    x, pos, batch = ragged(sizes)
    layer = make(region_size=region_size)
    geometry = layer.geometry(pos, batch, batch_size=len(sizes))
    assert (geometry.regions.pool is None) == (sizes == SIZES)
    y, clusters = layer(x, pos, batch, batch_size=len(sizes), return_clusters=True)
    truth, index = loop_cluster(layer, x, geometry)
    torch.testing.assert_close(y, truth, rtol=0, atol=1e-12)
    assert torch.equal(clusters.index, index)


def test_slices_and_segments_agree():
    x, pos, batch = ragged([32, 32, 32])
    layer = make()
    dense = layer.geometry(pos, batch)
    assert dense.regions.pool is not None
    sparse = dense._replace(regions=dense.regions._replace(pool=None, size=None))
    y, found = layer(x, dense, return_clusters=True)
    z, other = layer(x, sparse, return_clusters=True)
    torch.testing.assert_close(y, z, rtol=0, atol=1e-12)
    assert torch.equal(found.index, other.index)
    torch.testing.assert_close(found.similarity, other.similarity, rtol=0, atol=1e-12)
    gradients = []
    for geometry in (dense, sparse):
        layer.zero_grad()
        layer(x, geometry).square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_positions_and_geometry_give_the_same_answer():
    x, pos, batch = ragged()
    layer = make()
    geometry = cluster_geometry(pos, batch, num_centers=4, k=5, region_size=16, batch_size=6)
    assert torch.equal(layer(x, pos, batch, batch_size=6), layer(x, geometry))


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    dim=st.integers(1, 4),
    seed=st.integers(0, 99),
    grid=st.booleans(),
)
def test_permuting_points_permutes_the_output(sizes, dim, seed, grid):
    x, pos, batch = ragged(sizes, dim, seed)
    if grid:  # distinct points of a lattice: ties in every search, but no coincident points
        cells = torch.randperm(4**dim * 20, generator=torch.Generator().manual_seed(seed))
        cells = cells[: sum(sizes)] if len(cells) >= sum(sizes) else None
        if cells is None:
            return
        pos = torch.stack([cells // 4**a % (4 if a < dim - 1 else 999) for a in range(dim)], 1)
        pos = pos.double()
    layer = make()
    order = torch.cat(
        [torch.nonzero(batch == b).view(-1)[torch.randperm(n)] for b, n in enumerate(sizes)]
    )
    y = layer(x, pos, batch, batch_size=len(sizes))
    z = layer(x[order], pos[order], batch, batch_size=len(sizes))
    torch.testing.assert_close(z, y[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("sizes", [SIZES, [32, 32], [5, 5, 5]])
def test_joining_clouds_changes_nothing(sizes):
    x, pos, batch = ragged(sizes)
    layer = make()
    y = layer(x, pos, batch, batch_size=len(sizes))
    for cloud in range(len(sizes)):
        own = batch == cloud
        torch.testing.assert_close(layer(x[own], pos[own]), y[own], rtol=0, atol=1e-12)


def test_moving_a_cloud_changes_nothing():
    x, pos, batch = ragged()
    layer = make()
    shift = torch.tensor([5.0, -3.0, 0.5], dtype=pos.dtype)
    torch.testing.assert_close(
        layer(x, pos + shift, batch), layer(x, pos, batch), rtol=0, atol=1e-12
    )


@settings(max_examples=60)
@given(
    points=st.integers(1, 14),
    centers=st.integers(1, 9),
    k=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_centres_of_the_same_points_are_told_apart_by_the_rule(points, centers, k, seed):
    sizes = [points] * 3
    x, pos, batch = ragged(sizes, seed=seed)
    layer = make(num_centers=centers, k=k, region_size=None)
    geometry = layer.geometry(pos, batch)
    y = layer(x, geometry)
    sparse = geometry._replace(regions=geometry.regions._replace(pool=None, size=None))
    torch.testing.assert_close(layer(x, sparse), y, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x[:points], pos[:points]), y[:points], rtol=0, atol=1e-11)


@pytest.mark.slow
def test_a_million_points():
    generator = torch.Generator().manual_seed(0)
    pos, x = torch.rand(1_000_000, 3, generator=generator), torch.randn(1_000_000, 6)
    layer = make(torch.float32, region_size=64)
    with torch.no_grad():
        y, clusters = layer(x, pos, return_clusters=True)
    assert torch.isfinite(y).all()
    assert int(torch.bincount(clusters.region).max()) <= 64
    part = clusters.region == clusters.region[0]  # one region by itself gives the same
    alone = make(torch.float32, region_size=None)(x[part], pos[part])
    torch.testing.assert_close(alone, y[part], rtol=1e-3, atol=1e-4)


def test_a_coincident_point_breaks_nothing():
    x, pos, batch = ragged([40])
    pos[1:30] = pos[0]
    y = make()(x, pos, batch)
    assert torch.isfinite(y).all()
    torch.testing.assert_close(
        y, loop_cluster(make(), x, make().geometry(pos, batch))[0], rtol=0, atol=1e-12
    )


def test_float32_agrees_with_float64():
    x, pos, batch = ragged()
    double = make()
    single = make(torch.float32)
    y = single(x.float(), pos, batch)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), double(x, pos, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [[8, 8], [9, 4]], ids=["slices", "segments"])
def test_gradients(sizes):
    x, pos, batch = ragged(sizes)
    layer = make(heads=2, head_channels=3, num_centers=2, k=3, region_size=8)
    geometry = layer.geometry(pos, batch)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *values):
        return torch.func.functional_call(
            layer, dict(zip(names, values, strict=True)), (x, geometry)
        )

    assert torch.autograd.gradcheck(
        function, (x.requires_grad_(), *layer.parameters()), fast_mode=True
    )
    layer(x, geometry).square().sum().backward()
    assert layer.alpha.grad.abs() > 0
    assert layer.beta.grad.abs() > 0


def test_negative_alpha_prefers_the_least_similar_centre():
    x, pos, batch = ragged([32])
    layer = make()
    with torch.no_grad():
        layer.alpha.fill_(-2.0)
    truth, index = loop_cluster(layer, x, layer.geometry(pos, batch))
    y, clusters = layer(x, pos, batch, return_clusters=True)
    torch.testing.assert_close(y, truth, rtol=0, atol=1e-12)
    assert torch.equal(clusters.index, index)


def test_clusters_stay_in_their_region():
    x, pos, batch = ragged()
    layer = make()
    _, clusters = layer(x, pos, batch, return_clusters=True)
    assert torch.equal(clusters.index // 4, clusters.region[:, None].expand(-1, 3))
    assert torch.equal(batch[clusters.center][clusters.index], batch[:, None].expand(-1, 3))
    assert (clusters.similarity > 0).all() and (clusters.similarity < 1).all()
    assert not clusters.similarity.requires_grad


def test_given_and_random_centres():
    x, pos, batch = ragged([20, 30])
    layer = make(region_size=None)
    centers = torch.tensor([0, 5, 9, 19, 20, 21, 22, 49])
    y, clusters = layer(x, pos, batch, centers=centers, return_clusters=True)
    assert torch.equal(clusters.center, centers)
    geometry = layer.geometry(pos, batch, centers=centers)
    torch.testing.assert_close(y, loop_cluster(layer, x, geometry)[0], rtol=0, atol=1e-12)
    random = make(centers="random")
    draws = [random(x, pos, batch, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    geometry = random.geometry(pos, batch, generator=torch.Generator().manual_seed(3))
    assert len(geometry.center.unique()) == len(geometry.center)
    assert geometry.regions.of[geometry.center].tolist() == [r for r in range(4) for _ in range(4)]


@pytest.mark.parametrize("sizes", [[32, 32], [40, 7]], ids=["slices", "segments"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast(sizes, half):
    x, pos, batch = ragged(sizes, dtype=torch.float32)
    layer = make(torch.float32)
    with torch.autocast("cpu", half):
        y = layer(x, pos, batch)
        y.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
    assert (y.float() - layer(x, pos, batch)).abs().median() < 0.05


def test_memory_holds_no_tensor_of_regions_by_centres_by_points_by_channels():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(each, torch.Tensor):
                    Largest.seen = max(Largest.seen, each.numel())
            return out

    for sizes in ([512, 512], [512, 300]):
        x, pos, batch = ragged(sizes, dtype=torch.float32)
        layer = make(torch.float32, num_centers=16, k=9, region_size=None)
        geometry = layer.geometry(pos, batch)
        Largest.seen = 0
        with Largest():
            layer(x, geometry).sum().backward()
        n, width = sum(sizes), 15
        assert Largest.seen <= max(2 * n * width, n * 16 * 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 6)}, ValueError, "found [3, 6]"),
        ({"x": torch.zeros(4, 5)}, ValueError, "found [4, 5]"),
        ({"batch": torch.tensor([1, 0, 0, 0])}, ValueError, "sorted"),
        ({"pos": torch.full((4, 3), float("nan"))}, ValueError, "NaN"),
        ({"centers": torch.tensor([0])}, ValueError, "region_size=None"),
        (
            {"x": torch.zeros(4, 6).double()},
            ValueError,
            "x is torch.float64, the layer torch.float32",
        ),
        ({"x": torch.zeros(4, 6, device="meta")}, ValueError, "x is on meta"),
        ({"pos": torch.zeros(4, 3, device="meta")}, ValueError, "meta device"),
        ({"batch_size": 2}, ValueError, "needs a batch vector"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"x": torch.zeros(4, 6), "pos": torch.zeros(4, 3)} | change
    with pytest.raises(error, match=re.escape(message)):
        make(torch.float32)(**arguments)


def test_bad_geometry_centres_and_options():
    x, pos, _ = ragged([20])
    with pytest.raises(ValueError, match="the layer needs 4 of 5"):
        make()(x, cluster_geometry(pos, num_centers=3, k=5))
    layer = make(region_size=None)
    for extra in ({"batch_size": 1}, {"centers": torch.arange(4)}, {"batch": torch.zeros(20)}):
        with pytest.raises(ValueError, match="go with positions"):
            layer(x, layer.geometry(pos), **extra)
    with pytest.raises(ValueError, match="own points"):
        layer(x, pos, centers=torch.tensor([0, 1, 2, 20]))
    with pytest.raises(ValueError, match="centers must be 4 int64"):
        layer(x, pos, centers=torch.tensor([0, 1, 2]))
    for options in ({"heads": 0}, {"centers": "best"}, {"k": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ContextCluster(6, **options)
