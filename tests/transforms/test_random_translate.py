from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import RandomTranslate


def test_moves_all_points_by_one_vector():
    pos = torch.randn(9, 3)
    data = RandomTranslate(0.2)(Data(pos=pos, normal=pos.clone()))
    shift = data.pos - pos
    assert torch.allclose(shift, shift[:1].expand(9, 3), atol=1e-6)
    assert 0 < shift.abs().max() <= 0.2 + 1e-6
    assert torch.equal(data.normal, pos)


def test_bad_distance():
    with pytest.raises(ValueError, match="expected at least 0"):
        RandomTranslate(-1.0)
