from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import RandomAnisotropicScale


def test_factors_are_in_range_and_differ():
    data = RandomAnisotropicScale(0.5, 2.0)(Data(pos=torch.ones(5, 3)))
    factors = data.pos[0]
    assert torch.equal(data.pos, factors.expand(5, 3))
    assert ((factors >= 0.5) & (factors <= 2)).all()
    assert len(set(factors.tolist())) == 3


def test_normals_stay_perpendicular_to_the_surface():
    # two tangents of a plane, and its normal
    u, v = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([-1.0, 0.3, 1.0])
    normal = torch.nn.functional.normalize(torch.linalg.cross(u, v), dim=0)
    data = RandomAnisotropicScale(0.5, 2.0)(
        Data(pos=torch.stack([u, v]), normal=normal.expand(2, 3))
    )
    assert (data.pos * data.normal).sum(1).abs().max() < 1e-6
    assert torch.allclose(data.normal.norm(dim=1), torch.ones(2))


def test_bad_range():
    with pytest.raises(ValueError, match="expected 0 < low <= high"):
        RandomAnisotropicScale(2.0, 1.0)
