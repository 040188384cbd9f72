from __future__ import annotations

import pytest
import torch

from pointcluster.nn import BatchNorm, ResidualMLP


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [None, 3])
def test_the_equation(dtype, hidden):
    torch.manual_seed(0)
    layer, x = ResidualMLP(5, hidden).to(dtype), torch.randn(20, 5, dtype=dtype)

    def normed(y):
        return (y - y.mean(dim=0)) / (y.var(dim=0, correction=0) + 1e-5).sqrt()

    y = normed(x @ layer.linear1.weight.t()).relu()
    expected = (x + normed(y @ layer.linear2.weight.t())).relu()
    torch.testing.assert_close(layer(x), expected)
    layer.eval()
    rows = torch.cat([layer(row[None]) for row in x])  # each point by itself
    torch.testing.assert_close(layer(x), rows)


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        ResidualMLP(5, 0)


def test_one_point_can_be_trained_on():
    layer = BatchNorm(3).train()
    x = torch.randn(1, 3, requires_grad=True)
    before = layer.running_mean.clone()
    layer(x).sum().backward()
    torch.testing.assert_close(layer(x), layer.eval()(x))
    assert torch.equal(layer.running_mean, before) and x.grad.isfinite().all()
