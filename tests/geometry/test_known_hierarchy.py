from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.geometry import (
    AnchorPlan,
    LatticePlan,
    StagePlan,
    build_hierarchy,
    planned_anchors,
)
from pointcluster.geometry.known_hierarchy import known_hierarchy
from tests.geometry.same import assert_same

PLANS = [StagePlan(0.5, 4, 8, 2, 3), StagePlan(0.5, 4, 8, 2, 3)]


def cloud(n, seed=0):
    return Data(pos=torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)))


def carrying(n, seed=0, plans=PLANS):
    data = cloud(n, seed)
    hierarchy = build_hierarchy(data.pos, plans)
    data.hierarchy = hierarchy._replace(pos=data.pos.clone())
    return data


def batch_of(*sizes):
    return Batch.from_data_list([carrying(n, seed) for seed, n in enumerate(sizes)])


def test_points_carry_their_hierarchy():
    data = carrying(30)
    assert_same(known_hierarchy(data, PLANS), build_hierarchy(data.pos, PLANS))
    batch = batch_of(30, 0, 12)
    built = build_hierarchy(batch.pos, PLANS, batch.batch, batch_size=3)
    assert_same(known_hierarchy(batch, PLANS), built)
    assert_same(known_hierarchy(batch, tuple(PLANS)), built)


def test_points_carry_anchors_alone():
    plans = [AnchorPlan(0.5, 4, "first"), AnchorPlan(0.5, 4, "first")]
    items = [cloud(n, n) for n in (30, 0, 12)]
    for data in items:
        data.hierarchy = planned_anchors(data.pos, plans)
    batch = Batch.from_data_list(items)
    built = planned_anchors(batch.pos, plans, batch.batch, batch_size=3)
    assert_same(known_hierarchy(batch, plans), built)
    with pytest.raises(ValueError, match="by other plans, .AnchorPlan.* StagePlan"):
        known_hierarchy(batch, PLANS)
    with pytest.raises(ValueError, match="by other plans"):
        known_hierarchy(batch, [plans[0], plans[1]._replace(start="far")])
    batch.pos = batch.pos + 1
    with pytest.raises(ValueError, match="are not where they were"):
        known_hierarchy(batch, plans)


def test_most_points_carry_none():
    assert known_hierarchy(cloud(30), PLANS) is None
    batch = Batch.from_data_list([carrying(30)], exclude_keys=["hierarchy"])
    assert known_hierarchy(batch, PLANS) is None


@pytest.mark.parametrize(
    "plans", [PLANS[:1], [*PLANS, PLANS[0]], [PLANS[0], PLANS[1]._replace(k=5)]]
)
@pytest.mark.parametrize("data", [carrying(30), batch_of(30, 12)], ids=["data", "batch"])
def test_other_plans(data, plans):
    with pytest.raises(ValueError, match=r"other plans.*use PrecomputeHierarchy\(model.plans\)"):
        known_hierarchy(data, plans)


def test_one_cloud_of_other_plans():
    other = carrying(30, plans=[PLANS[0], PLANS[1]._replace(ratio=0.25)])
    with pytest.raises(ValueError, match="other plans"):
        known_hierarchy(Batch.from_data_list([carrying(30), other]), PLANS)


def test_plans_of_pictures():
    with pytest.raises(ValueError, match="by other plans, .StagePlan.* LatticePlan"):
        known_hierarchy(carrying(30), [LatticePlan(0.5, 4, 8, 2, 3)] * 2)


def drop(data):
    data.pos = data.pos[:-1]
    data.batch = data.batch[:-1]


def flatten(data):
    data.pos = data.pos[:, :2]


def move(data):
    data.pos = data.pos + 1


def turn(data):
    data.pos = data.pos.flip(1)


def sort(data):
    data.pos = data.pos[torch.arange(len(data.pos) - 1, -1, -1)]


def lose(data):
    data.pos = data.pos * float("nan")


def move_one(data):
    """A point that is no anchor, and in place, so that nothing else remembers it."""
    others = set(range(42)) - set(known_hierarchy(data, PLANS).stages[0].anchors.anchor.tolist())
    data.pos[max(others), 1] += 1e-3


def give_one_away(data):
    """The first point of the second cloud, which is no anchor."""
    assert 30 not in known_hierarchy(data, PLANS).stages[0].anchors.anchor.tolist()
    data.batch = torch.arange(2).repeat_interleave(torch.tensor([31, 11]))


def regroup(data):
    data.batch = torch.arange(2).repeat_interleave(torch.tensor([12, 30]))


def one_cloud(data):
    data.batch = None


def one_more_cloud(data):
    data._num_graphs = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"pos has shape \[41, 3\], .* for \[42, 3\]: points or axes were dropped"),
        (flatten, r"pos has shape \[42, 2\], .* for \[42, 3\]"),
        (move, "are not where they were .* comes after all that changes points"),
        (turn, "are not where they were"),
        (sort, "are not where they were"),
        (lose, "are not where they were"),
        (move_one, "are not where they were"),
        (give_one_away, "put into other clouds"),
        (regroup, "put into other clouds"),
        (one_cloud, "there are 1 clouds, .* is of 2"),
        (one_more_cloud, "there are 3 clouds, .* is of 2"),
    ],
)
def test_points_that_were_changed_since(change, message):
    batch = batch_of(30, 12)
    change(batch)
    with pytest.raises(ValueError, match=message):
        known_hierarchy(batch, PLANS)


def test_left_on_another_device():
    batch = batch_of(30, 12)
    batch.pos = batch.pos.to("meta")
    with pytest.raises(ValueError, match=r"pos is on meta, the hierarchy .* on cpu"):
        known_hierarchy(batch, PLANS)


@pytest.mark.parametrize("wrong", [{}, {"layout": ()}, "tree", [], (), [torch.zeros(3)]])
def test_something_else_of_that_name(wrong):
    with pytest.raises(TypeError, match=r"what build_hierarchy\(\) or PrecomputeHierarchy makes"):
        known_hierarchy(Data(pos=torch.zeros(9, 3), hierarchy=wrong), PLANS)


def test_what_is_given_goes_before_what_is_carried():
    data, other = carrying(30), cloud(12)
    given = build_hierarchy(other.pos, PLANS)
    assert_same(known_hierarchy(other, PLANS, given), given)
    with pytest.raises(ValueError, match=r"found|shape \[30, 3\].*that is given"):
        known_hierarchy(data, PLANS, given)


def test_batches_of_batches_and_their_parts():
    batch = Batch.from_data_list([batch_of(30, 12), batch_of(7)])
    built = build_hierarchy(batch.pos, PLANS, torch.arange(3).repeat_interleave(
        torch.tensor([30, 12, 7])), batch_size=3)  # fmt: skip
    batch.batch = built.batch
    batch._num_graphs = 3
    assert_same(known_hierarchy(batch, PLANS), built)
    part = batch_of(30, 12).to_data_list()[1]
    assert_same(known_hierarchy(part, PLANS), build_hierarchy(part.pos, PLANS))
