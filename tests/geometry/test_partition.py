from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.geometry.partition import canonical_order, partition, region_levels
from tests.geometry.conftest import KINDS, make_points


def test_levels():
    assert [region_levels(n, 32) for n in (0, 1, 32, 33, 64, 65, 1000)] == [0, 0, 0, 1, 1, 2, 5]
    assert region_levels(10**6, None) == 0


def halve(pos, index, levels):
    """Split one cloud at medians, recursively."""
    if levels == 0:
        return [index]
    points = pos[index]
    axis = int((points.amax(0) - points.amin(0)).argmax())
    index = index[points[:, axis].sort(stable=True).indices]
    left = (len(index) + 1) // 2
    return halve(pos, index[:left], levels - 1) + halve(pos, index[left:], levels - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [64, 61, 77])
def test_split_agrees_with_recursion(kind, n):
    pos = make_points(kind, n, 3, torch.float64)
    order, (count,) = partition(pos, [n], [4])
    truth = halve(pos, torch.arange(n), 4)
    found = [part.tolist() for part in order.split(count)]
    assert [sorted(f) for f in found] == [sorted(t.tolist()) for t in truth]
    assert max(count) - min(count) <= 1


@pytest.mark.parametrize("sizes", [[64] * 3, [64, 32, 16, 8], [77, 0, 5, 61, 40, 700]], ids=str)
@pytest.mark.parametrize("halvings", [[3], [4, 2, 0, 1, 2, 3], [0]], ids=str)
def test_clouds_that_are_halved_together_are_halved_as_alone(sizes, halvings):
    pos = make_points("lattice", sum(sizes), 3, torch.float32)
    levels = [halvings[c % len(halvings)] for c in range(len(sizes))]
    order, regions = partition(pos, sizes, levels)
    start = 0
    for n, level, part, own in zip(sizes, levels, order.split(sizes), regions, strict=True):
        alone, (expected,) = partition(pos[start : start + n], [n], [level])
        assert torch.equal(part - start, alone) and own == expected
        start += n


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=5),
    region_size=st.one_of(st.none(), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_partition_keeps_every_point_once_and_clouds_apart(sizes, region_size, seed):
    pos = make_points("lattice", sum(sizes), 2, torch.float32, seed)
    levels = [region_levels(n, region_size) for n in sizes]
    order, regions = partition(pos, sizes, levels)
    assert order.sort().values.tolist() == list(range(sum(sizes)))
    begin = 0
    for n, of_cloud in zip(sizes, regions, strict=True):
        assert sum(of_cloud) == n
        assert set(order[begin : begin + n].tolist()) == set(range(begin, begin + n))
        if n:
            assert max(of_cloud) <= (region_size or n)
            assert max(of_cloud) - min(of_cloud) <= 1
        begin += n


def test_canonical_order_is_lexicographic():
    pos = make_points("lattice", 200, 3, torch.float32)
    order = canonical_order(pos, [90, 0, 110])
    rows = [tuple(p) for p in pos[order].tolist()]
    assert rows[:90] == sorted(rows[:90]) and rows[90:] == sorted(rows[90:])
    assert set(order[:90].tolist()) == set(range(90))
