from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import (
    AnchorHierarchy,
    Hierarchy,
    StagePlan,
    anchor_hierarchy,
    build_hierarchy,
)
from pointcluster.geometry.packed import pack_hierarchy, unpack_hierarchy
from tests.geometry.same import assert_same

PLANS = [StagePlan(0.5, 8, 16, 4, 5), StagePlan(0.25, 6, None, 2, 3)]


def hierarchy_of(sizes):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(sum(sizes), 3, generator=generator)
    return build_hierarchy(pos, PLANS, batch, batch_size=len(sizes))


@pytest.mark.parametrize("sizes", [[100], [64, 64], [64, 0, 3], [0]], ids=str)
def test_one_part_comes_back_as_it_was(sizes):
    hierarchy = hierarchy_of(sizes)
    tables = pack_hierarchy(hierarchy)
    back = unpack_hierarchy(tables)
    assert_same(back, hierarchy)
    for a, b in zip(back.stages, hierarchy.stages, strict=True):
        assert a.anchors.grouping.data_ptr() == b.anchors.grouping.data_ptr()
        assert a.clusters.grouping.data_ptr() == b.clusters.grouping.data_ptr()


def test_all_that_is_no_tensor_is_in_the_layout():
    tables = pack_hierarchy(hierarchy_of([64, 3]))
    names = {name for name, value in tables.items() if not isinstance(value, torch.Tensor)}
    assert names == {"layout"}
    assert tables["layout"][:2] == (2, 67) and len(tables["layout"][2]) == len(PLANS)
    # Lists instead of tuples, as after batch.to(device), and lists of lists.
    size, points, *stages, regions = tables["layout"]
    again = [[size, points, *([list(row) for row in rows] for rows in stages), regions]]
    assert_same(unpack_hierarchy(tables | {"layout": [again]}), hierarchy_of([64, 3]))


@pytest.mark.parametrize("sizes", [[100], [64, 64], [64, 0, 3], [0]], ids=str)
def test_anchors_alone(sizes):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(0))
    hierarchy = anchor_hierarchy(pos, [0.5, 0.25], 6, batch, batch_size=len(sizes))
    back = unpack_hierarchy(pack_hierarchy(hierarchy))
    assert_same(back, hierarchy)
    assert back.stages[0].grouping.data_ptr() == hierarchy.stages[0].grouping.data_ptr()


@pytest.mark.parametrize("kind", [Hierarchy, AnchorHierarchy])
def test_no_stages(kind):
    back = unpack_hierarchy(pack_hierarchy(kind((), 3)))
    assert back == kind((), 3) and type(back) is kind
