from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import (
    AnchorPlan,
    StageGeometry,
    anchor_geometry,
    anchor_hierarchy,
    fps,
    knn,
    planned_anchors,
)
from tests.geometry.conftest import make_points
from tests.geometry.same import assert_same


def packed(sizes, seed=0):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return make_points("random", sum(sizes), 3, torch.float64, seed), batch


def test_anchor_geometry_mixes_samplings_by_size():
    pos, batch = packed([17_000, 40, 0, 9])
    g = anchor_geometry(pos, [500, 10, 3, 20], 4, batch)
    count = torch.bincount(g.batch, minlength=4).tolist()
    assert abs(count[0] - 500) < 60 and count[1:] == [10, 0, 9]
    assert torch.equal(g.batch, batch[g.anchor]) and (g.batch.diff() >= 0).all()


@pytest.mark.parametrize("start", ["far", "first"])
def test_anchors_of_anchors(backend, start):
    sizes = [60, 0, 17, 1]
    pos, batch = packed(sizes)
    found = anchor_hierarchy(pos, [0.5, 8], 6, batch, batch_size=4, start=start, backend=backend)
    assert found.batch_size == 4
    first, second = (stage.anchors for stage in found.stages)
    assert all(stage.clusters is None for stage in found.stages)
    expected = fps(pos, 0.5, batch, batch_size=4, start=start)
    assert torch.equal(first.anchor, expected)
    assert torch.equal(second.pos, pos[first.anchor[second.anchor]])
    starts = [0, 30, 39]  # the anchors of a stage are the first of the stage before
    kept = [range(s, s + n) for s, n in zip(starts, [8, 8, 1], strict=True)]
    assert second.anchor.tolist() == [i for part in kept for i in part]
    near = knn(first.pos, second.pos, 6, first.batch, second.batch, batch_size=4)
    assert torch.equal(second.grouping, near)
    assert anchor_hierarchy(pos, [], 6, batch, batch_size=4).batch_size == 4


def test_plans_say_it_stage_by_stage(backend):
    pos, batch = packed([60, 0, 17, 1])
    plans = [AnchorPlan(0.5, 6), AnchorPlan([8, 0, 3, 1], 4, "first")]
    found = planned_anchors(pos, plans, batch, batch_size=4, backend=backend)
    first = anchor_geometry(pos, 0.5, 6, batch, batch_size=4, backend=backend)
    second = anchor_geometry(
        first.pos, [8, 0, 3, 1], 4, first.batch, batch_size=4, start="first", backend=backend
    )
    assert_same(found.stages, (StageGeometry(first, None), StageGeometry(second, None)))
    assert found.plans == tuple(plans)
    same = [AnchorPlan(0.5, 6), AnchorPlan(8, 6, "first")]
    assert_same(
        planned_anchors(pos, same, batch, batch_size=4, backend=backend),
        anchor_hierarchy(pos, [0.5, 8], 6, batch, batch_size=4, backend=backend),
    )


def test_no_clouds_and_no_points():
    empty = torch.zeros(0, dtype=torch.int64)
    for batch_size in (None, 0, 2):
        assert len(anchor_geometry(torch.zeros(0, 3), 3, 2, empty, batch_size=batch_size).pos) == 0


def test_moves_to_a_device():
    pos, batch = packed([20, 9])
    hierarchy = anchor_hierarchy(pos, [0.5, 0.5], 4, batch)
    assert_same(hierarchy.to("cpu"), hierarchy)
    gone = hierarchy.to("meta")
    assert type(gone) is type(hierarchy) and gone.batch_size == 2
    assert all(each.anchors.anchor.is_meta and each.anchors.num_points for each in gone.stages)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (AnchorPlan(0.5, 0), "k must"),
        (AnchorPlan(2.0, 4), r"\(0, 1\]"),
        (AnchorPlan(0.5, 4, "middle"), "start must be"),
    ],
)
def test_bad_plans(plan, message):
    with pytest.raises(ValueError, match=message):
        planned_anchors(torch.zeros(4, 3), [plan])
    with pytest.raises(ValueError, match="sampling must be"):
        planned_anchors(torch.zeros(4, 3), [AnchorPlan(0.5, 2)], sampling="grid")
