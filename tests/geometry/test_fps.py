from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.geometry import fps, voxel_anchors
from pointcluster.geometry.fps import one_a_voxel
from tests.geometry.conftest import HERE, KINDS, make_points
from tests.geometry.truth import loop_fps


def check(pos, nums, sizes, backend, start="first"):
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    found = fps(pos, nums, batch, batch_size=len(sizes), start=start, backend=backend)
    truth, begin = [], 0
    for n, m in zip(sizes, nums, strict=True):
        if n and m:
            truth += [begin + i for i in loop_fps(pos[begin : begin + n].numpy(), m, 0)]
        begin += n
    assert found.tolist() == truth


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_loop(backend, dtype, kind, dim):
    sizes = [40, 1, 0, 23, 34, 0]
    check(make_points(kind, sum(sizes), dim, dtype), [12, 1, 5, 23, 7, 2], sizes, backend)


@pytest.mark.parametrize("kind", KINDS)
def test_many_equal_clouds(backend, dtype, kind):
    check(make_points(kind, 8 * 40, 3, dtype), [12] * 8, [40] * 8, backend)


@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=3),
    share=st.floats(0.05, 1),
    dim=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("name", HERE)
def test_every_backend_on_grids_with_ties(name, sizes, share, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(0, 4, (sum(sizes), dim), generator=generator).float()
    check(pos, [max(1, int(share * n)) for n in sizes], sizes, name)


@pytest.mark.slow
def test_large_cloud_agrees_with_the_plain_path():
    pos = make_points("random", 30_000, 3, torch.float32)
    for each in (pos, pos.double()):
        assert torch.equal(fps(each, 500), fps(each, 500, backend="torch"))


def test_fewer_anchors_are_the_first_of_more():
    pos = make_points("random", 500, 3, torch.float32)
    assert torch.equal(fps(pos, 300)[:40], fps(pos, 40))


def test_anchors_do_not_depend_on_the_order_of_points(backend):
    pos = make_points("random", 300, 3, torch.float32)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pos[fps(pos, 50, backend=backend)], pos[order][fps(pos[order], 50)])


def test_no_point_twice_however_many_coincide(backend):
    found = fps(torch.zeros(9, 3), 9, start="first", backend=backend)
    assert found.tolist() == list(range(9))


def test_share_is_rounded_up_and_large_numbers_are_cut():
    batch = torch.tensor([0] * 5 + [2] * 3)
    pos = make_points("random", 8, 2, torch.float32)
    assert len(fps(pos, 0.5, batch)) == 3 + 0 + 2
    assert len(fps(pos, 4, batch)) == 4 + 0 + 3
    assert len(fps(make_points("random", 100, 3, torch.float32), 0.07)) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_anchor_of_a_cloud_far_away_depends_on_nothing_else(dtype):
    # At a million float32 has steps of 1/16: a mean of such numbers would be off by some of them.
    for seed in range(30):
        clouds = [make_points("far", n, 3, dtype, seed=seed + n) for n in (23, 37)]
        batch = torch.arange(2).repeat_interleave(torch.tensor([23, 37]))
        together = fps(torch.cat(clouds), 5, batch)
        order = torch.randperm(23, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(together[:5], fps(clouds[0], 5))
        assert torch.equal(clouds[0][order][fps(clouds[0][order], 1)], clouds[0][together[:1]])


def test_random_start_follows_the_seed():
    pos = make_points("random", 100, 3, torch.float32)
    first = {
        int(fps(pos, 1, start="random", generator=torch.Generator().manual_seed(s)))
        for s in range(20)
    }
    again = fps(pos, 9, start="random", generator=torch.Generator().manual_seed(4))
    assert len(first) > 5
    assert torch.equal(
        again, fps(pos, 9, start="random", generator=torch.Generator().manual_seed(4))
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num": 0}, ValueError, "num must be at least 1"),
        ({"num": 1.5}, ValueError, "(0, 1]"),
        ({"num": [1, 2]}, ValueError, "num lists 2 clouds"),
        ({"num": [-1]}, ValueError, "at least 0"),
        ({"num": "all"}, TypeError, "num must be an integer"),
        ({"num": [2.5]}, TypeError, "each entry of num must be an integer"),
        ({"start": "last"}, ValueError, "start must be"),
        ({"pos": torch.full((3, 2), float("nan"))}, ValueError, "NaN"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fps(**({"pos": torch.zeros(3, 2), "num": 1} | change))


def test_voxel_anchors_are_one_a_voxel_and_about_as_many_as_asked():
    pos = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    for num, slack in ((50, 0.3), (700, 0.1), (5_000, 0.1)):
        found = voxel_anchors(pos, num)
        assert abs(len(found) - num) <= slack * num
        assert len(found.unique()) == len(found)
        gap = torch.cdist(pos[found], pos[found]).fill_diagonal_(9).amin(dim=1).median()
        random = torch.randperm(20_000, generator=torch.Generator().manual_seed(1))[: len(found)]
        other = torch.cdist(pos[random], pos[random]).fill_diagonal_(9).amin(dim=1).median()
        assert gap > 1.1 * other  # more even than chance


def test_voxel_anchors_of_ragged_and_degenerate_clouds():
    pos = torch.cat([torch.zeros(50, 3), torch.rand(400, 3), torch.rand(2, 3)])
    batch = torch.tensor([0] * 50 + [2] * 400 + [3] * 2)
    found = voxel_anchors(pos, 20, batch, batch_size=5)
    count = torch.bincount(batch[found], minlength=5).tolist()
    assert count[0] == 1 and count[1] == 0 and count[3] == 2 and count[4] == 0
    assert 15 <= count[2] <= 25
    alone = voxel_anchors(pos[50:450], 20) + 50
    assert torch.equal(found[batch[found] == 2], alone)


def test_voxel_anchors_keep_two_far_apart_points():
    pos = torch.tensor([[0.0, 0.0], [1e6, 0.0], [1e6, 1e-3]])
    assert voxel_anchors(pos, 2).tolist() == [0, 1]


def test_one_point_a_voxel_of_a_given_size():
    generator = torch.Generator().manual_seed(0)
    for dim in (1, 2, 3):
        pos = torch.rand(200, dim, generator=generator, dtype=torch.float64) * 3 - 7
        best: dict[tuple, tuple] = {}
        low = pos.amin(dim=0)
        for index, point in enumerate(pos):
            cell = ((point - low) / 0.5).floor()
            distance = (point - low - (cell + 0.5) * 0.5).square().sum().item()
            key = tuple(cell.tolist())
            best[key] = min(best.get(key, (distance, index)), (distance, index))
        assert one_a_voxel(pos, 0.5).tolist() == sorted(index for _, index in best.values())
    assert one_a_voxel(pos, 100.0).numel() == 1
    assert one_a_voxel(pos, 1e-9).tolist() == list(range(200))
    assert one_a_voxel(pos[:0], 1.0).numel() == 0
    assert one_a_voxel(torch.zeros(4, 3), 1.0).tolist() == [0]
    for side in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="side of a voxel"):
            one_a_voxel(pos, side)
