from __future__ import annotations

import pytest
import torch

from pointcluster.models.dense.aligned_pool import AlignedPool, pooled_on_cpu

ops = pytest.importorskip("torchvision.ops")


@pytest.mark.parametrize("stride", [4, 8])
def test_regions_are_sampled_at_the_middles_of_pixels(stride):
    """On a map that rises evenly, what is pooled is the map at the bins' middles."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    # A cell of the map stands for the pixels around (its number + 1/2) strides.
    maps = {"0": stride * torch.stack([rows + 0.5, columns + 0.5])[None]}
    pool = AlignedPool(["0"], [stride], 2)
    box = torch.tensor([[2.0, 3.0, 8.0, 7.0]]) * stride
    found = pool(maps, [box])
    middles = torch.tensor([4.0, 6.0]) * stride, torch.tensor([3.5, 6.5]) * stride
    torch.testing.assert_close(found[0, 0, :, 0], middles[0])
    torch.testing.assert_close(found[0, 1, 0], middles[1])
    two = {"0": torch.cat([-maps["0"], maps["0"]])}
    torch.testing.assert_close(pool(two, [box[:0], box]), found)


def test_regions_by_area_on_levels():
    levels = {str(i): torch.full((1, 1, 128 >> i, 128 >> i), float(i)) for i in range(4)}
    pool = AlignedPool(list(levels), [4, 8, 16, 32], 1)
    sides = torch.tensor([20.0, 111.0, 113.0, 223.0, 225.0, 449.0])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], 1)
    assert pool(levels, [boxes]).flatten().tolist() == pytest.approx([0, 0, 1, 1, 2, 3])


@pytest.mark.parametrize("strides", [[4, 8, 16, 16], [4, 16], [32, 16], [6, 12]])
def test_levels_that_no_area_tells_apart(strides):
    with pytest.raises(ValueError, match="each twice the one before, found"):
        AlignedPool([str(stride) for stride in strides], strides, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [0, 1, 3])
@pytest.mark.parametrize("size", [(7, 7), (2, 3)])
def test_matrix_products_pool_as_torchvision_does(dtype, samples, size):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 20, 31, generator=generator).to(dtype)
    middles = torch.rand(60, 2, generator=generator) * torch.tensor([240.0, 160.0])
    sides = torch.rand(60, 2, generator=generator) * 200  # many reach far over the border
    sides[:3] *= torch.tensor([[0.0, 1.0], [0.0, 0.0], [-0.2, 1.0]])  # and some are empty
    boxes = torch.cat([middles - sides / 2, middles + sides / 2], 1).to(dtype)
    picture = torch.randint(2, (60, 1), generator=generator).to(dtype)
    regions = torch.cat([picture, boxes], 1)
    expected = ops.roi_align(maps, regions, size, 1 / 8, samples, aligned=True)
    found = pooled_on_cpu(maps, regions, size, 1 / 8, samples)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_gradients_come_through_where_they_are_asked_for():
    maps = {"0": torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)}
    box = torch.tensor([[3.0, 5.0, 20.0, 22.0]], dtype=torch.float64)
    pool = AlignedPool(["0"], [4], 2)
    pooled = pool(maps, [box])
    pooled.sum().backward()
    assert maps["0"].grad.sum() == pytest.approx(2 * 4)  # each mean's weights sum to 1
    torch.testing.assert_close(pool({"0": maps["0"].detach()}, [box]), pooled.detach())
