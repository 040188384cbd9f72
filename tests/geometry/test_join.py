from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.geometry import (
    Hierarchy,
    LatticePlan,
    StageGeometry,
    StagePlan,
    anchor_geometry,
    anchor_hierarchy,
    build_hierarchy,
    cluster_geometry,
    image_hierarchy,
    join_hierarchies,
    lattice_positions,
)
from tests.geometry.conftest import KINDS, make_points
from tests.geometry.same import assert_same

PLANS = [StagePlan(0.5, 8, 16, 4, 5), StagePlan(0.25, 6, 16, 4, 5), StagePlan(1.0, 4, None, 2, 3)]
PICTURES = [LatticePlan(4, 4, 0, 2, 2), LatticePlan(3, 2, 1, 1, 2)]
FINE = [LatticePlan(1, 1, 0, 2, 2), LatticePlan(3, 2, 1, 1, 2)]  # centres of many points


def clouds_of(sizes, kind="random", dtype=torch.float32, seed=0):
    return [make_points(kind, n, 3, dtype, seed + i) for i, n in enumerate(sizes)]


def packed(clouds):
    batch = torch.arange(len(clouds)).repeat_interleave(torch.tensor([len(c) for c in clouds]))
    return torch.cat(clouds), batch


def whole(clouds):
    pos, batch = packed(clouds)
    return build_hierarchy(pos, PLANS, batch, batch_size=len(clouds))


def alone(clouds):
    return [build_hierarchy(pos, PLANS) for pos in clouds]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=5),
    equal=st.booleans(),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_joining_clouds_then_building_is_building_then_joining(sizes, equal, kind, dtype, seed):
    clouds = clouds_of([sizes[0]] * len(sizes) if equal else sizes, kind, dtype, seed)
    assert_same(join_hierarchies(alone(clouds)), whole(clouds))


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    equal=st.booleans(),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    start=st.sampled_from(["far", "first"]),
)
def test_anchors_alone(sizes, equal, kind, dtype, start):
    clouds = clouds_of([sizes[0]] * len(sizes) if equal else sizes, kind, dtype)
    pos, batch = packed(clouds)
    whole = anchor_hierarchy(pos, [0.5, 0.5], 5, batch, batch_size=len(clouds), start=start)
    parts = [anchor_hierarchy(each, [0.5, 0.5], 5, start=start) for each in clouds]
    assert_same(join_hierarchies(parts), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes",
    [[64, 64, 64], [64, 0, 64], [0, 0], [0], [1, 1, 1], [2, 300], [33, 34, 300, 0], [600]],
    ids=str,
)
def test_the_fast_paths_are_there_as_in_the_joined_batch(sizes, kind):
    clouds = clouds_of(sizes, kind)
    joined = join_hierarchies(alone(clouds))
    assert_same(joined, whole(clouds))
    equal = len(set(sizes)) == 1 and sizes[0] > 0
    for anchors, clusters in joined.stages:
        assert (anchors.cloud_size is not None) == (clusters.cloud_size is not None) == equal
        assert clusters.regions.pool is not None or not equal


def test_parts_may_be_batches_themselves():
    clouds = clouds_of([40, 0, 40, 7, 90])
    parts = [whole(clouds[:2]), whole(clouds[2:3]), whole(clouds[3:])]
    assert_same(join_hierarchies(parts), whole(clouds))
    assert_same(join_hierarchies(parts[:1]), parts[0])
    none = build_hierarchy(
        torch.zeros(0, 3), PLANS, torch.zeros(0, dtype=torch.int64), batch_size=0
    )
    assert_same(join_hierarchies([none, parts[1], none]), parts[1])


def test_joining_changes_no_part():
    clouds = clouds_of([40, 41])
    parts = alone(clouds)
    join_hierarchies(parts)
    for part, again in zip(parts, alone(clouds), strict=True):
        assert_same(part, again)


@pytest.mark.parametrize("ordered", [(True, True), (True, False), (False, True)])
def test_stages_that_are_not_stored_by_region(ordered):
    """Composed by hand, the clusters have an order of their own."""

    def compose(pos, batch, size, keep):
        anchors = anchor_geometry(pos, 0.5, 4, batch, batch_size=size)
        clusters = cluster_geometry(
            anchors.pos, anchors.batch, num_centers=2, k=3, region_size=8, batch_size=size
        )
        if not keep:  # as if they had been stored so
            anchor = anchors.anchor[clusters.order]
            anchors = anchors._replace(
                anchor=anchor,
                grouping=anchors.grouping[clusters.order],
                relative=anchors.relative[clusters.order],
                pos=anchors.pos[clusters.order],
            )
            clusters = clusters._replace(order=None)
        return Hierarchy((StageGeometry(anchors, clusters),), size)

    clouds = clouds_of([50, 33], dtype=torch.float64)
    parts = [
        compose(pos, torch.zeros(len(pos), dtype=torch.int64), 1, keep)
        for pos, keep in zip(clouds, ordered, strict=True)
    ]
    joined = join_hierarchies(parts).stages[0]
    direct = compose(*packed(clouds), 2, True).stages[0]
    order = direct.clusters.order.clone()
    start = 0
    for pos, keep in zip(clouds, ordered, strict=True):
        count = (len(pos) + 1) // 2
        if not keep:
            order[start : start + count] = torch.arange(start, start + count)
        start += count
    assert torch.equal(joined.clusters.order, order)
    assert torch.equal(joined.anchors.pos[order], direct.anchors.pos[direct.clusters.order])
    assert torch.equal(joined.clusters.regions.group, direct.clusters.regions.group)


@settings(max_examples=40)
@given(
    extents=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=4),
    share=st.floats(0.05, 1),
    between=st.booleans(),
    plans=st.sampled_from([PICTURES, FINE]),
    seed=st.integers(0, 99),
)
def test_pictures(extents, share, between, plans, seed):
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for extent in extents:
        pos = lattice_positions(extent, "pixel", dtype=torch.float32)
        kept = torch.randperm(len(pos), generator=generator)[: max(1, int(share * len(pos)))]
        pos = pos[kept]
        if between:
            pos = (pos + 0.02 * torch.randn(pos.shape, generator=generator)).clamp(-0.5, 0.5)
        pictures.append(pos)
    pos, batch = packed(pictures)
    parts = [
        image_hierarchy(each, [extent], plans)
        for each, extent in zip(pictures, extents, strict=True)
    ]
    assert_same(join_hierarchies(parts), image_hierarchy(pos, extents, plans, batch))


def test_zeros_at_the_border_stay_zeros():
    extents = [(8, 8), (8, 12)]
    pictures = [lattice_positions(extent, "pixel", dtype=torch.float32) for extent in extents]
    parts = [
        image_hierarchy(pos, [extent], PICTURES)
        for pos, extent in zip(pictures, extents, strict=True)
    ]
    assert all(part.stages[1].anchors.outside for part in parts)
    joined = join_hierarchies(parts).stages[1].anchors
    expected = sum(
        int((a.grouping == a.num_points).sum()) for a in (part.stages[1].anchors for part in parts)
    )
    assert int((joined.grouping == joined.num_points).sum()) == expected > 0


def test_bad_input():
    with pytest.raises(ValueError, match="no hierarchies to join"):
        join_hierarchies([])
    pos = torch.rand(20, 3)
    other = [PLANS[0]._replace(k=3), *PLANS[1:]]
    for plans in (other, PLANS[:2], [PLANS[0]._replace(num_centers=2), *PLANS[1:]]):
        with pytest.raises(ValueError, match=r"different plans cannot be joined: .* number 1"):
            join_hierarchies([build_hierarchy(pos, PLANS), build_hierarchy(pos, plans)])
    with pytest.raises(ValueError, match="different plans"):
        join_hierarchies([build_hierarchy(pos, PLANS), anchor_hierarchy(pos, [0.5, 0.25, 1.0], 8)])
    with pytest.raises(ValueError, match="axes"):
        join_hierarchies([build_hierarchy(pos, PLANS), build_hierarchy(pos[:, :2], PLANS)])
