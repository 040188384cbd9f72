from __future__ import annotations

import pytest
import torch

from pointcluster.models.clouds import maximum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_maximum_is_that_of_a_loop(dtype):
    batch = torch.tensor([0, 0, 2, 2, 2, 3])  # cloud 1 is empty
    x = torch.randn(6, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 3
    expected = torch.zeros(4, 5, dtype=dtype)
    for cloud in (0, 2, 3):
        expected[cloud] = x[batch == cloud].amax(dim=0)
    torch.testing.assert_close(maximum(x, batch, 4), expected, rtol=0, atol=0)


def test_the_maximum_learns_by_the_points_that_give_it():
    batch = torch.tensor([0, 0, 1])
    x = torch.tensor([[1.0], [4.0], [-2.0]], dtype=torch.float64, requires_grad=True)
    maximum(x, batch, 2).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 1]
    assert torch.autograd.gradcheck(lambda x: maximum(x, batch, 2), x)
