from __future__ import annotations

import pytest
import torch

from pointcluster.nn import ContextClusterBlock


def make(**options):
    torch.manual_seed(0)
    options = {"heads": 2, "head_channels": 4, "region_size": 16, "k": 5} | options
    return ContextClusterBlock(8, **options).double().eval()


def points(sizes=(32, 0, 32, 32)):
    torch.manual_seed(1)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    n = sum(sizes)
    return torch.randn(n, 8).double(), torch.randn(n, 3).double(), batch


def test_is_two_normalised_residual_branches():
    x, pos, batch = points()
    block = make(layer_scale=0.3)
    assert block.scale1.tolist() == [pytest.approx(0.3)] * 8
    y, clusters = block(x, pos, batch, batch_size=4, return_clusters=True)
    z = x + block.scale1 * block.cluster(block.norm1(x, batch, 4), pos, batch, batch_size=4)
    z = z + block.scale2 * block.mlp(block.norm2(z, batch, 4))
    torch.testing.assert_close(y, z, rtol=0, atol=1e-12)
    assert clusters.index.shape == (96, 2)
    assert torch.equal(y, block(x, pos, batch, batch_size=4))


@pytest.mark.parametrize("options", [{}, {"heads": 1, "head_channels": 8}])
@pytest.mark.parametrize("sizes", [(32, 32), (9, 50, 1)])
@pytest.mark.parametrize("stored", [True, False])
def test_the_operator_adds_onto_other_features(sizes, options, stored):
    cluster = make(**options).cluster
    x, pos, batch = points(sizes)
    geometry = cluster.geometry(pos, batch)
    if stored:  # region by region already, as in a hierarchy
        assert geometry.order is not None
        geometry = cluster.geometry(pos[geometry.order], batch)._replace(order=None)
    onto, scale = torch.randn_like(x).requires_grad_(), torch.randn(8).double().requires_grad_()
    inputs = [onto, scale, *(each for each in cluster.parameters())]
    found, clusters = cluster(x, geometry, residual=onto, scale=scale, return_clusters=True)
    y, truth = cluster(x, geometry, return_clusters=True)
    truth_sum = onto + scale * y
    assert torch.equal(clusters.index, truth.index)
    torch.testing.assert_close(found, truth_sum, rtol=0, atol=1e-12)
    weight = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((truth_sum * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_what_is_added_to(dtype):
    block = make(layer_scale=1e-6).float()
    x, pos, batch = points((32, 32))
    x = x.float()
    with torch.autocast("cpu", dtype=dtype):
        y = block(x, pos, batch)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x, rtol=0, atol=1e-4)
    assert not torch.equal(y, x)


@pytest.mark.parametrize("sizes", [(32, 0, 32, 32), (32, 32), (9, 50, 1)])
def test_geometry_agrees_and_clouds_are_apart(sizes):
    x, pos, batch = points(sizes)
    block = make(layer_scale=None)
    y = block(x, pos, batch, batch_size=len(sizes))
    geometry = block.cluster.geometry(pos, batch, batch_size=len(sizes))
    assert torch.equal(y, block(x, geometry))
    for cloud in set(batch.tolist()):
        own = batch == cloud
        torch.testing.assert_close(block(x[own], pos[own]), y[own], rtol=0, atol=1e-11)


def test_drop_path_leaves_whole_clouds_as_they_are():
    x, pos, batch = points((16,) * 40)
    block = make(drop_path=0.6, layer_scale=1.0).train()
    changed = (block(x, pos, batch) != x).any(dim=1).view(40, 16)
    assert (changed == changed[:, :1]).all()
    assert 0 < int(changed[:, 0].sum()) < 40


def test_given_centres():
    x, pos, batch = points((9, 9))
    block = make(region_size=None, num_centers=2)
    centers = torch.tensor([0, 8, 9, 10])
    _, clusters = block(x, pos, batch, centers=centers, return_clusters=True)
    assert torch.equal(clusters.center, centers)


def test_x_of_another_length():
    x, pos, batch = points()
    with pytest.raises(ValueError, match=r"shape \[96, 8\]"):
        make()(x[1:], pos, batch, batch_size=4)


def test_hooks_and_wrapped_layers_are_called():
    from torch import nn

    class Twice(nn.Module):
        """Stands for an adapter: what a layer gives, changed."""

        def __init__(self, layer):
            super().__init__()
            self.layer, self.in_features = layer, layer.in_features
            self.out_features, self.weight, self.bias = layer.out_features, layer.weight, layer.bias

        def forward(self, x):
            return 2 * self.layer(x)

    x, pos, batch = points((32, 32))
    block, called = make(layer_scale=0.3), []
    plain = block(x, pos, batch)
    names = ["cluster.fv", "cluster.proj", "mlp.0", "mlp.3"]
    handles = [
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in names
    ]
    torch.testing.assert_close(block(x, pos, batch), plain, rtol=0, atol=1e-12)
    assert called == names
    for handle in handles:
        handle.remove()
    block.cluster.proj, block.mlp[3] = Twice(block.cluster.proj), Twice(block.mlp[3])
    y = x + block.scale1 * block.cluster(block.norm1(x, batch, 2), pos, batch)
    y = y + block.scale2 * block.mlp(block.norm2(y, batch, 2))
    found = block(x, pos, batch)
    torch.testing.assert_close(found, y, rtol=0, atol=1e-12)
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [None, 0.5])
def test_second_derivatives(scale):
    torch.manual_seed(0)
    block = make(layer_scale=scale, head_channels=3)
    x = torch.randn(16, 8, dtype=torch.float64, requires_grad=True)
    geometry = block.cluster.geometry(torch.randn(16, 3, dtype=torch.float64))
    assert torch.autograd.gradgradcheck(lambda x: block(x, geometry), (x,), atol=1e-5)
    (gradient,) = torch.autograd.grad(block(x, geometry).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None for p in block.mlp.parameters() if p.dim() == 2)
