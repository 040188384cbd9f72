from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import RandomRotateUp


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_positions_and_normals_alike(axis):
    pos = torch.randn(20, 3, dtype=torch.float64)
    data = RandomRotateUp(axis=axis)(Data(pos=pos, normal=pos.clone()))
    assert torch.equal(data.pos, data.normal)
    assert torch.equal(data.pos[:, axis], pos[:, axis])
    assert not torch.allclose(data.pos, pos)
    # a turn keeps all dot products and all triple products
    assert torch.allclose(data.pos @ data.pos.T, pos @ pos.T)
    assert torch.allclose(torch.linalg.det(data.pos[:3]), torch.linalg.det(pos[:3]))


def test_angle_is_in_range():
    for _ in range(50):
        data = RandomRotateUp(10.0)(Data(pos=torch.tensor([[1.0, 0.0, 0.0]])))
        assert data.pos[0, 0] >= torch.cos(torch.tensor(10.0).deg2rad()) - 1e-6


def test_bad_axis():
    with pytest.raises(ValueError, match="axis is 3"):
        RandomRotateUp(axis=3)
