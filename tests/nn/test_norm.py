from __future__ import annotations

import torch
from torch_geometric.nn import LayerNorm

from pointcluster.nn import CloudNorm


def make():
    norm = CloudNorm(4).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    return norm


def test_is_group_norm_with_one_group_on_each_cloud():
    torch.manual_seed(0)
    sizes = [5, 0, 1, 9]
    batch = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    x = 3 + 2 * torch.randn(15, 4, dtype=torch.float64)
    norm = make()
    y = norm(x, batch, 4)
    for cloud in (0, 2, 3):
        own = x[batch == cloud].t()[None]
        truth = torch.nn.functional.group_norm(own, 1, norm.weight, norm.bias, norm.eps)
        torch.testing.assert_close(y[batch == cloud], truth[0].t(), rtol=0, atol=1e-12)


def test_equal_clouds_agree_with_the_general_case():
    torch.manual_seed(0)
    batch = torch.arange(3).repeat_interleave(7)
    x = torch.randn(21, 4, dtype=torch.float64)
    torch.testing.assert_close(make()(x, batch, 3, 7), make()(x, batch, 3), rtol=0, atol=1e-12)


def test_gradients_and_half_precision():
    batch = torch.tensor([0, 0, 0, 2, 2])
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    norm = make()
    assert torch.autograd.gradcheck(lambda x: norm(x, batch, 3), (x,))
    half = CloudNorm(4)(1e4 + torch.randn(5, 4).bfloat16(), batch, 3)
    assert half.dtype == torch.bfloat16 and torch.isfinite(half).all()


def test_is_what_pyg_calls_layer_norm_of_a_graph():
    torch.manual_seed(0)
    norm, truth = make(), LayerNorm(4, mode="graph").double()
    truth.load_state_dict(norm.state_dict())
    batch = torch.arange(4).repeat_interleave(torch.tensor([5, 0, 1, 9]))
    x = 3 + 2 * torch.randn(15, 4, dtype=torch.float64)
    torch.testing.assert_close(norm(x, batch, 4), truth(x, batch, 4), rtol=0, atol=1e-12)
