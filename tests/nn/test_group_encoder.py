from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pointcluster.geometry import anchor_geometry
from pointcluster.nn import GroupEncoder, group_encoder
from pointcluster.nn.group_encoder import one_region

SIZES = [40, 9, 1, 25]


def make(dtype=torch.float64, blocks=2, **options):
    torch.manual_seed(0)
    layer = GroupEncoder(6, 10, k=5, blocks=blocks, head_channels=4, **options)
    for value in layer.state_dict().values():
        if value.is_floating_point():
            value += 0.2 * torch.rand_like(value)
    return layer.to(dtype)


def points(sizes=tuple(SIZES), dtype=torch.float64, seed=0):
    seed = torch.Generator().manual_seed(seed)
    total = sum(sizes)
    x = torch.randn(total, 6, generator=seed, dtype=dtype)
    pos = torch.randn(total, 3, generator=seed, dtype=dtype)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return x, pos, batch


def naive(layer, x, geometry):
    """Group by group and point by point, with the definition's own order of steps."""
    rows = []
    for cloud in range(geometry.batch_size):
        anchors = (geometry.batch == cloud).nonzero()[:, 0].tolist()
        if not anchors:
            continue
        near = [x[geometry.grouping[m]] - x[geometry.anchor[m]] for m in anchors]
        std = torch.stack(near).std()
        for m, d in zip(anchors, near, strict=True):
            seen = layer.alpha * d / (std + 1e-5) + layer.beta
            here = x[geometry.anchor[m]].expand(len(d), -1)
            rows.append(layer.linear(torch.cat([seen, here], dim=1)))
    k = geometry.grouping.size(1)
    x = layer.norm(torch.cat(rows)).relu()
    for cluster, mlp in zip(layer.clusters, layer.mlps, strict=True):
        groups = []
        for group in x.split(k):
            f, v = cluster.fv(group).chunk(2, dim=1)
            center, own = f.mean(dim=0), v.mean(dim=0)
            cos = torch.cosine_similarity(f, center[None], dim=1)
            s = torch.sigmoid(cluster.beta + cluster.alpha * cos)[:, None]
            h = (own + (s * v).sum(dim=0)) / (1 + s.sum())
            groups.append(group + cluster.proj(s * h))
        x = mlp(torch.cat(groups))
    return torch.stack([group.amax(dim=0) for group in x.split(k)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("elements", [100, 1 << 20])
def test_a_plain_loop(training, blocks, elements, monkeypatch):
    monkeypatch.setattr(group_encoder, "CHUNK", elements)  # few groups at a time, or all
    layer = make(blocks=blocks).train(training)
    twin = copy.deepcopy(layer)
    x, pos, batch = points()
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = layer(one, geometry)[0], naive(twin, other, geometry)
    torch.testing.assert_close(y, expected)
    with torch.no_grad():
        again = copy.deepcopy(layer)(x, geometry)[0]
    torch.testing.assert_close(again, expected)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    for (name, a), b in zip(layer.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(layer.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_a_linear_map_that_is_watched_is_called():
    layer, called = make(), []
    x, pos, batch = points()
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    expected = layer(x, geometry)[0]
    for name, part in layer.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    torch.testing.assert_close(layer(x, geometry)[0], expected)
    assert sorted(called) == sorted(
        name for name, part in layer.named_modules() if isinstance(part, nn.Linear)
    )


def test_gradients_by_differences():
    layer = make(blocks=1)
    x, pos, batch = points((12, 4))
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    x = x[:16].requires_grad_()

    def call(x, *parameters):
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(copy.deepcopy(layer), values, (x, geometry))[0]

    names = [name for name, _ in layer.named_parameters()]
    assert torch.autograd.gradcheck(call, (x, *layer.parameters()), atol=1e-5, fast_mode=True)


def test_float32_agrees_with_float64():
    x, pos, batch = points()
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    for training in (True, False):
        wide, narrow = make().train(training), make(torch.float32).train(training)
        y = narrow(x.float(), geometry)[0]
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), wide(x, geometry)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num", [0.5, 3])
def test_joining_moving_and_permuting_clouds_changes_nothing(num):
    layer = make(num=num).eval()
    x, pos, batch = points()
    whole = layer(x, pos, batch)
    assert torch.equal(whole[0], layer(x, anchor_geometry(pos, num, 5, batch))[0])
    seed = torch.Generator().manual_seed(1)
    for cloud in range(len(SIZES)):
        own = (batch == cloud).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=seed)]
        y, at, _ = layer(x[own], pos[own] + torch.tensor([3.0, -2.0, 5.0]).double())
        mine = whole[2] == cloud
        torch.testing.assert_close(y, whole[0][mine])
        torch.testing.assert_close(at - torch.tensor([3.0, -2.0, 5.0]).double(), whole[1][mine])


def test_empty_clouds_and_no_clouds():
    layer = make()
    x, pos, batch = points()
    y = layer.eval()(x, pos, 2 * batch, batch_size=9)[0]
    torch.testing.assert_close(y, layer(x, pos, batch)[0])
    before = [each.clone() for each in layer.train().buffers()]
    y, at, cloud = layer(x[:0], pos[:0], batch[:0], batch_size=2)
    assert y.shape == (0, 10) and len(at) == len(cloud) == 0
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), before, strict=True))


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_and_coincident_clouds_can_be_trained_on(n):
    layer = make().train()
    x = torch.ones(n, 6).double().requires_grad_()
    y = layer(x, torch.zeros(n, 3).double())[0]
    y.sum().backward()
    assert x.grad.isfinite().all() and y.isfinite().all()


def test_other_ways_to_normalise_and_half_precision():
    layer = make(torch.float32).train()
    x, pos, batch = points(dtype=torch.float32)
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    expected = layer(x, geometry)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x.requires_grad_(), geometry)[0]
    assert (half.float() - expected).abs().mean() < 0.02 * expected.abs().max()
    half.float().sum().backward()
    assert x.grad.isfinite().all()
    other = make().train()
    mean = other.mlps[0].norm1.running_mean.clone()
    other.mlps[0].norm1.eval()  # one that is frozen keeps its statistics
    other(*points())
    assert torch.equal(other.mlps[0].norm1.running_mean, mean)
    other.norm = nn.BatchNorm1d(10).double()
    assert not other(*points())[0].isnan().any()


def test_similarities_are_those_of_the_operator():
    layer = make().eval()
    x, pos, batch = points()
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    rows, groups = layer._first(x, geometry)(slice(None)), len(geometry.anchor)
    for block in range(2):
        y, found = layer.clusters[block](rows, one_region(5, x.device), return_clusters=True)
        s = layer.similarities(x, geometry, block)
        torch.testing.assert_close(s.flatten(), found.similarity[:, 0])
        assert torch.equal(found.index[:, 0], torch.arange(groups).repeat_interleave(5))
        rows = layer.mlps[block](rows + y)


def test_what_does_not_fit():
    layer = make()
    x, pos, batch = points()
    with pytest.raises(ValueError, match="gathers 4 points, the layer 5"):
        layer(x, anchor_geometry(pos, 0.5, 4, batch))
    with pytest.raises(ValueError, match=r"shape \[75, 6\]"):
        layer(x[:, :5], pos, batch)
    with pytest.raises(ValueError, match=r"shape \[75, 6\]"):
        layer(x[1:], pos, batch)
    with pytest.raises(ValueError, match="float32, the layer torch.float64"):
        layer(x.float(), pos, batch)
    with pytest.raises(ValueError, match="go with positions"):
        layer(x, anchor_geometry(pos, 0.5, 5, batch), batch)
    for options in ({"k": 0}, {"blocks": 0}, {"num": 1.5}, {"head_channels": 0}):
        with pytest.raises(ValueError, match="at least|share"):
            GroupEncoder(6, 10, **options)
