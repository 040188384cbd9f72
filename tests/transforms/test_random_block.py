from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import RandomBlock


def scene(size=500):
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(size, 3, generator=generator) * torch.tensor([100.0, 100.0, 5.0])
    y = torch.zeros(size, dtype=torch.int64)
    y[:2] = 1
    y[2:20] = -1
    return Data(pos=pos, x=pos.clone(), y=y, name="here")


def test_it_is_the_disc_around_a_point():
    data = scene()
    torch.manual_seed(0)
    block = RandomBlock(60)(data)
    assert block.pos.shape == block.x.shape == (60, 3) and block.y.shape == (60,)
    assert block.name == "here" and len(data.pos) == 500
    middle = block.x[0] - block.pos[0]
    torch.testing.assert_close(block.x - block.pos, middle.expand(60, 3), atol=1e-4, rtol=0)
    reach = (data.pos[:, :2] - middle[:2]).norm(dim=1)
    inside = set(map(tuple, block.x.tolist()))
    nearest = data.pos[reach.argsort()[:60]]
    assert inside == set(map(tuple, nearest.tolist()))


def test_a_small_scene_is_taken_whole_and_seeds_decide():
    torch.manual_seed(1)
    one = RandomBlock(60)(scene())
    torch.manual_seed(1)
    assert torch.equal(RandomBlock(60)(scene()).pos, one.pos)
    assert len(RandomBlock(9000)(scene()).pos) == 500


def test_rare_classes_are_in_the_middle_as_often_as_asked():
    torch.manual_seed(0)
    block = RandomBlock(1, balanced=1.0)
    found = [int(block(scene()).y) for _ in range(60)]
    assert 15 < sum(kind == 1 for kind in found) < 45 and -1 not in found


def test_points_are_dropped_over_a_wider_disc():
    torch.manual_seed(0)
    reaches = [RandomBlock(60, drop=0.9)(scene()).pos[:, :2].norm(dim=1).max() for _ in range(20)]
    torch.manual_seed(0)
    plain = [RandomBlock(60)(scene()).pos[:, :2].norm(dim=1).max() for _ in range(20)]
    assert sum(reaches) > 1.2 * sum(plain)


def test_what_makes_no_sense():
    for options in ({"num_points": 0}, {"num_points": 5, "drop": 1.0},
                    {"num_points": 5, "balanced": 2}):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            RandomBlock(**options)
    assert "RandomBlock(5" in repr(RandomBlock(5))
