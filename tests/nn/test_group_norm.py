from __future__ import annotations

import pytest
import torch
from torch import nn

from pointcluster.nn.group_norm import Affine, Moments, NormBack


def rows(shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 4, generator=generator, dtype=dtype) + shift


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_moments_of_parts_are_those_of_all(dtype, shift):
    x = rows(shift, dtype)
    moments = Moments(4, x)
    for part in x.split([1, 30, 19]):
        moments.add(part)
    mean, var = moments.result()
    assert mean.dtype == var.dtype == dtype
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean(dim=0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), exact.var(dim=0, correction=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("own", [True, False])
def test_forth_and_back_as_the_layer(own):
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4).double().train(own)
    for value in [*layer.parameters(), layer.running_mean, layer.running_var]:
        value.data = value.data + 0.3 * torch.rand_like(value)
    x, grad = rows().requires_grad_(), rows(0.2).flip(0)
    if own:
        mean, var = x.detach().mean(dim=0), x.detach().var(dim=0, correction=0)
    else:
        mean, var = layer.running_mean.clone(), layer.running_var.clone()
    affine = Affine.of(mean, var, layer.weight.detach(), layer.bias.detach(), layer.eps)
    y = layer(x)
    torch.testing.assert_close(x.detach() * affine.scale + affine.shift, y.detach())
    y.backward(grad)
    back = NormBack(affine, own, len(x))
    for g, z in zip(grad.split(20), x.detach().split(20), strict=True):
        back.add(g, z)
    to_weight, to_bias = back.parameters()
    torch.testing.assert_close(to_weight, layer.weight.grad)
    torch.testing.assert_close(to_bias, layer.bias.grad)
    torch.testing.assert_close(back.input(grad, x.detach()), x.grad)
