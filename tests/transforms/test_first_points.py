from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import FirstPoints


def test_keeps_every_attribute_in_step():
    pos = torch.arange(12.0).view(4, 3)
    data = Data(pos=pos, normal=-pos, x=pos[:, :2], y=torch.tensor([1]), name="a")
    cut = FirstPoints(3)(data)
    assert torch.equal(cut.pos, pos[:3])
    assert torch.equal(cut.normal, -pos[:3])
    assert torch.equal(cut.x, pos[:3, :2])
    assert (cut.y.tolist(), cut.name) == ([1], "a")
    assert data.pos.size(0) == 4  # the item that came in is as it was


def test_small_clouds_stay():
    data = Data(pos=torch.ones(1, 3), y=torch.tensor([1]))
    cut = FirstPoints(5)(data)
    assert (cut.pos.shape, cut.y.shape) == ((1, 3), (1,))


def test_number_of_points_is_positive():
    with pytest.raises(ValueError, match="num is 0"):
        FirstPoints(0)
