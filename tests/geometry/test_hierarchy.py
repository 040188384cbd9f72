from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from pointcluster.geometry import (
    AnchorPlan,
    StagePlan,
    build_hierarchy,
    cluster_geometry,
    fps,
    knn,
    planned_anchors,
)
from tests.geometry.conftest import KINDS, make_points
from tests.geometry.same import assert_same

PLANS = [StagePlan(0.5, 8, 16, 4, 5), StagePlan(0.25, 6, 16, 4, 5), StagePlan(1.0, 4, None, 2, 3)]


def packed(sizes, kind="random", seed=0, dim=3):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return make_points(kind, sum(sizes), dim, torch.float64, seed), batch


@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_what_single_functions_give(backend, kind):
    sizes = [200, 0, 37, 1, 200]
    pos, batch = packed(sizes, kind)
    hierarchy = build_hierarchy(pos, PLANS, batch, batch_size=5, backend=backend)
    before, before_batch = pos, batch
    for stage, plan in zip(hierarchy.stages, PLANS, strict=True):
        a, c = stage
        assert torch.equal(a.pos, before[a.anchor])
        assert torch.equal(a.batch, before_batch[a.anchor])
        assert len(a.anchor.unique()) == len(a.anchor)
        near = knn(before, a.pos, plan.k, before_batch, a.batch, batch_size=5)
        if kind not in ("lattice", "coincident"):  # ties go by another order of the points
            assert torch.equal(a.grouping, near)
        torch.testing.assert_close(
            (before[a.grouping] - a.pos[:, None]).norm(dim=2),
            (before[near] - a.pos[:, None]).norm(dim=2),
            rtol=0,
            atol=0,
        )
        torch.testing.assert_close(a.relative, before[a.grouping] - a.pos[:, None])
        assert c.order is None and torch.equal(c.batch, a.batch)
        assert (c.regions.of.diff() >= 0).all()
        number = torch.arange(len(c.center)) // plan.num_centers
        assert torch.equal(c.regions.of[c.center], number)
        before, before_batch = a.pos, a.batch


def test_anchors_are_those_of_farthest_point_sampling():
    pos, batch = packed([256, 256])
    stages = build_hierarchy(pos, PLANS[:2], batch).stages
    chosen = stages[0].anchors.anchor
    assert set(chosen.tolist()) == set(fps(pos, 128, batch).tolist())
    again = chosen[stages[1].anchors.anchor]
    assert set(again.tolist()) == set(fps(pos, 32, batch).tolist())


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 80), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["random", "grid"]),
)
def test_neither_order_nor_company_matters(sizes, seed, kind):
    pos, batch = packed(sizes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if kind == "grid":  # distinct points with many ties
        cell = torch.cat([torch.randperm(512, generator=generator)[:n] for n in sizes])
        pos = torch.stack([cell // 64, cell // 8 % 8, cell % 8], dim=1).double()
    whole = build_hierarchy(pos, PLANS, batch, batch_size=len(sizes))
    for cloud, n in enumerate(sizes):
        own = pos[batch == cloud]
        order = torch.randperm(n, generator=generator)
        alone = build_hierarchy(own[order], PLANS, batch_size=1)
        for a, b in zip(whole.stages, alone.stages, strict=True):
            inside = a.anchors.batch == cloud
            assert torch.equal(a.anchors.pos[inside], b.anchors.pos)
            assert torch.equal(a.anchors.relative[inside], b.anchors.relative)
            region = a.clusters.regions.of[inside]
            assert torch.equal(region - (region[0] if n else 0), b.clusters.regions.of)
            centers = a.anchors.pos[a.clusters.center][a.anchors.batch[a.clusters.center] == cloud]
            assert torch.equal(centers, b.anchors.pos[b.clusters.center])


def test_threads_change_nothing():
    pos, batch = packed([300, 40, 500])
    alone = build_hierarchy(pos, PLANS, batch)
    torch.set_num_threads(2)
    try:
        threads = build_hierarchy(pos, PLANS, batch)
    finally:
        torch.set_num_threads(1)
    for a, b in zip(alone.stages, threads.stages, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("n", [1000, 1024, 777, 333])
def test_equal_clouds_get_equal_regions(n):
    pos, batch = packed([n, n])
    for stage in build_hierarchy(pos, [StagePlan(0.5, 4, 32, 4, 4)] * 3, batch).stages:
        assert stage.clusters.regions.pool is not None
        assert stage.clusters.regions.size <= 32


@pytest.mark.parametrize("sampling", ["voxel", "auto"])
def test_large_clouds_get_their_anchors_by_voxel(sampling):
    pos, batch = packed([20_000 if sampling == "auto" else 900, 300])
    stages = build_hierarchy(pos, PLANS[:2], batch, sampling=sampling).stages
    for before, stage, plan in zip([len(pos) - 300, None], stages, PLANS, strict=False):
        if before:
            count = int((stage.anchors.batch == 0).sum())
            assert abs(count - plan.ratio * before) < 0.15 * before * plan.ratio
    alone = build_hierarchy(pos[:-300], PLANS[:2], sampling=sampling).stages
    for a, b in zip(stages, alone, strict=True):
        assert torch.equal(a.anchors.pos[a.anchors.batch == 0], b.anchors.pos)


@pytest.mark.slow
def test_a_million_points():
    pos = torch.rand(1_000_000, 3, generator=torch.Generator().manual_seed(0))
    (stage,) = build_hierarchy(pos, [StagePlan(0.02, 8, 64, 4, 6)]).stages
    assert 15_000 < len(stage.anchors.anchor) < 25_000
    assert stage.anchors.grouping.shape[1] == 8


@pytest.mark.parametrize("sizes", [[64, 64], [50, 0, 3, 1, 41], [0, 0]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_asked_of_a_gpu_where_sizes_are_known(sizes, dtype):
    """Fake tensors say that they are on a GPU and hold nothing: asked for a value, they raise."""
    with FakeTensorMode():
        pos = torch.empty(sum(sizes), 3, device="cuda", dtype=dtype)
        found = [
            build_hierarchy(pos, PLANS, sizes=sizes),
            planned_anchors(pos, [AnchorPlan(0.5, 4), AnchorPlan(0.5, 4, "first")], sizes=sizes),
        ]
        clusters = cluster_geometry(pos, num_centers=4, k=6, region_size=16, sizes=sizes)
        anchors = fps(pos, 0.5, sizes=sizes)
        counts = [-(-n // 2) for n in sizes]
        near = knn(pos, pos[anchors], 5, sizes=sizes, query_sizes=counts)
    assert clusters.batch.shape == (sum(sizes),) and near.shape == (sum(counts), 5)
    for hierarchy in found:
        first = hierarchy.stages[0].anchors
        assert first.grouping.device.type == "cuda" and first.batch_size == len(sizes)


@pytest.mark.parametrize("sizes", [[64, 64], [50, 0, 3, 1, 41], [0, 0]], ids=str)
def test_known_sizes_change_nothing(sizes):
    pos, batch = packed(sizes)
    count = len(sizes)
    assert_same(
        build_hierarchy(pos, PLANS, sizes=sizes),
        build_hierarchy(pos, PLANS, batch, batch_size=count),
    )
    assert_same(
        cluster_geometry(pos, num_centers=4, k=6, sizes=sizes),
        cluster_geometry(pos, batch, num_centers=4, k=6, batch_size=count),
    )
    assert fps(pos, 0.5, sizes=sizes).equal(fps(pos, 0.5, batch, batch_size=count))
    with pytest.raises(ValueError, match="found sizes of 2 clouds with 5"):
        fps(torch.rand(4, 3), 2, sizes=[2, 3])


def test_no_clouds_and_no_points():
    empty = torch.zeros(0, dtype=torch.int64)
    for batch_size in (None, 0, 2):
        stages = build_hierarchy(torch.zeros(0, 3), PLANS, empty, batch_size=batch_size).stages
        assert all(len(stage.anchors.anchor) == 0 for stage in stages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plans": [PLANS[0]._replace(k=0)]}, "k must"),
        ({"plans": [PLANS[0]._replace(region_size=0)]}, "region_size"),
        ({"plans": [PLANS[0]._replace(ratio=2.0)]}, r"\(0, 1\]"),
        ({"sampling": "grid"}, "sampling must be"),
        ({"start": "middle"}, "start must be"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        build_hierarchy(**({"pos": torch.zeros(4, 3), "plans": PLANS} | change))
