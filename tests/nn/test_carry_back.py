from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointcluster.geometry import CarryGeometry
from pointcluster.geometry.carry import carry_geometry
from pointcluster.nn import CarryBack
from pointcluster.nn.carry_back import interpolate


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(30, 3, generator=generator, dtype=dtype)
    geometry = carry_geometry(pos, pos[:7] + 0.02, 3, [30], [7])
    x = torch.randn(7, 5, generator=generator, dtype=dtype)
    skip = torch.randn(30, 4, generator=generator, dtype=dtype)
    return x, geometry, skip


@pytest.mark.parametrize("mode", ["interpolate", "assign"])
def test_it_is_a_plain_loop(mode):
    x, geometry, skip = case()
    torch.manual_seed(0)
    layer = CarryBack(5, 4, 6, mode=mode).double().eval()
    found = layer(x, geometry, skip)
    w, v = layer.linear.weight, layer.skip.weight
    rows = []
    for n in range(30):
        y = v @ skip[n]
        near = [w @ x[a] for a in geometry.index[n]]
        if mode == "interpolate":
            rows.append(y + sum(g * c for g, c in zip(geometry.weight[n], near, strict=True)))
            continue
        s = [torch.sigmoid(layer.beta + layer.alpha * F.cosine_similarity(c, y, dim=0))
             for c in near]  # fmt: skip
        best = int(torch.stack(s).argmax())
        rows.append(y + s[best] * near[best])
    expected = F.gelu(layer.norm(torch.stack(rows)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["interpolate", "assign"])
def test_gradients_reach_everything(mode):
    x, geometry, skip = case()
    torch.manual_seed(0)
    layer = CarryBack(5, 4, 6, mode=mode).double()
    layer.norm.eval()
    inputs = (x.requires_grad_(), skip.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, skip: layer(x, geometry, skip), inputs)
    layer(x, geometry, skip).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().any() for p in layer.parameters())


def test_constants_stay_constant_and_an_anchor_keeps_its_value():
    _, geometry, _ = case()
    ones = torch.ones(7, 2, dtype=torch.float64)
    torch.testing.assert_close(interpolate(ones, geometry), torch.ones(30, 2).double())
    pos = torch.rand(6, 3)
    here = carry_geometry(pos, pos, 3, [6], [6])
    x = torch.randn(6, 4)
    assert torch.equal(interpolate(x, here), x)


def test_without_a_skip_and_what_does_not_fit():
    x, geometry, skip = case(torch.float32)
    assert CarryBack(5, 0, 6)(x, geometry).shape == (30, 6)
    with pytest.raises(ValueError, match="skip has 29 points, the geometry 30"):
        CarryBack(5, 4, 6)(x, geometry, skip[1:])
    with pytest.raises(ValueError, match="'interpolate' or 'assign', found 'copy'"):
        CarryBack(5, 4, 6, mode="copy")
    with pytest.raises(ValueError, match="skip_channels is 0"):
        CarryBack(5, 0, 6, mode="assign")
    assert isinstance(geometry, CarryGeometry)
