from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import StagePlan, build_hierarchy, join_hierarchies
from pointcluster.geometry.carry import carry_geometry

PLANS = [StagePlan(0.5, 8, 16, 4, 5, 3), StagePlan(0.5, 6, 16, 4, 5, 3)]


def points(sizes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(sum(sizes), 3, generator=generator, dtype=dtype)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return pos, batch


def test_weights_are_those_of_a_plain_loop():
    pos, _ = points([40])
    anchors = pos[:9] + 0.01
    found = carry_geometry(pos, anchors, 3, [40], [9])
    for n in range(40):
        square = (anchors - pos[n]).square().sum(dim=1)
        near = square.argsort()[:3]
        assert found.index[n].tolist() == near.tolist()
        weight = 1 / square[near]
        torch.testing.assert_close(found.weight[n], weight / weight.sum())


def test_a_point_on_an_anchor_takes_that_one_and_repeated_anchors_count_nothing():
    pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [2, 2, 2]])
    found = carry_geometry(pos, pos[[0, 1, 3]], 3, [3, 1], [2, 1])
    assert found.weight[0].tolist() == [1, 0, 0] and found.index[0, 0] == 0
    assert found.weight[1].tolist() == [1, 0, 0] and found.index[1, 0] == 1
    assert found.weight[3].tolist() == [1, 0, 0] and found.index[3].tolist() == [2, 2, 2]
    halfway = carry_geometry(torch.tensor([[0.5, 0, 0]]), pos[:2], 3, [1], [2])
    assert halfway.weight.tolist() == [[0.5, 0.5, 0]]
    # two anchors in one place share, and no distance is too small for the weights
    tiny = carry_geometry(torch.zeros(1, 3), torch.full((2, 3), 1e-30), 2, [1], [2])
    assert tiny.weight.sum() == 1 and tiny.weight.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hierarchy_carries_positions_back_near_to_where_they_were(dtype):
    pos, batch = points([200, 90, 3, 1], dtype=dtype)
    hierarchy = build_hierarchy(pos, PLANS, batch)
    before, clouds = pos, batch
    assert len(hierarchy.carries) == 2
    for carry, (anchors, _) in zip(hierarchy.carries, hierarchy.stages, strict=True):
        assert carry.index.shape == carry.weight.shape == (len(before), 3)
        assert carry.weight.dtype == dtype
        torch.testing.assert_close(carry.weight.sum(dim=1), torch.ones(len(before), dtype=dtype))
        used = carry.weight > 0
        same = anchors.batch[carry.index] == clouds[:, None]
        assert bool(same[used].all())
        there = (carry.weight[..., None] * anchors.pos[carry.index]).sum(dim=1)
        assert (there - before).norm(dim=1).mean() < 0.2
        before, clouds = anchors.pos, anchors.batch
    assert not build_hierarchy(pos, [p._replace(carry_k=0) for p in PLANS], batch).carries


def test_joined_hierarchies_carry_as_the_one_of_all_clouds_does():
    pos, batch = points([120, 60, 33])
    whole = build_hierarchy(pos, PLANS, batch)
    parts = [build_hierarchy(pos[batch == cloud], PLANS) for cloud in range(3)]
    joined = join_hierarchies(parts)
    for one, other in zip(whole.carries, joined.carries, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.weight, other.weight)
    assert torch.equal(whole.to("cpu").carries[1].index, whole.carries[1].index)


def test_all_stages_are_carried_back_or_none():
    with pytest.raises(ValueError, match="carry_k must be positive for all stages"):
        build_hierarchy(points([50])[0], [PLANS[0], PLANS[1]._replace(carry_k=0)])
    with pytest.raises(ValueError, match="carry_k"):
        build_hierarchy(points([50])[0], [PLANS[0]._replace(carry_k=-1)])
