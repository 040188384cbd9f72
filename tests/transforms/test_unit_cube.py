from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeScale

from pointcluster.transforms import UnitCube


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [2, 3])
def test_as_pygs_to_the_last_bit(dtype, dim):
    pos = 7 * torch.randn(50, dim, generator=torch.Generator().manual_seed(0), dtype=dtype) + 3
    data = Data(pos=pos, y=torch.tensor([2]))
    found = UnitCube()(data)
    assert torch.equal(found.pos, NormalizeScale()(Data(pos=pos)).pos) and found.y == 2
    assert 0.99 < float(found.pos.abs().max()) < 1
    assert torch.equal(data.pos, pos)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_points_that_coincide_and_none(count):
    found = UnitCube()(Data(pos=torch.full((count, 3), 5.0)))
    assert torch.equal(found.pos, torch.zeros(count, 3))
    assert repr(UnitCube()) == "UnitCube()"
