from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pointcluster.transforms import ImageToPoints, RandomPixels


def picture(height=8, width=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ImageToPoints()(torch.rand(3, height, width, generator=generator))


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 80), (0.5, 40), (0.25, 20), (0.1, 8), (0.001, 1)]
)
def test_keeps_a_share_in_order(share, count):
    whole = picture()
    whole.normal = torch.arange(80.0)
    whole.y = torch.tensor([3])
    part = RandomPixels(share, seed=0)(whole)
    index = part.normal.long()
    assert len(index) == count and (index.diff() > 0).all()
    assert torch.equal(part.x, whole.x[index]) and torch.equal(part.pos, whole.pos[index])
    assert part.extent == (8, 10) and type(part.extent) is tuple and "grid" not in part
    assert part.y.tolist() == [3]
    assert whole.grid == (8, 10) and whole.num_nodes == 80, "the input was changed"


def test_every_point_is_as_likely():
    torch.manual_seed(0)
    whole = Data(pos=torch.zeros(6, 2), x=torch.eye(6))
    counts = sum(RandomPixels(1 / 3)(whole).x.sum(0) for _ in range(1500))
    assert counts.sum() == 3000 and (counts / 500 - 1).abs().max() < 0.15


def test_seed_goes_with_the_picture_and_not_with_the_order():
    one, other = picture(seed=1), picture(seed=2)
    draw = RandomPixels(0.3, seed=7)
    torch.manual_seed(0)
    first, second = draw(one).pos, draw(other).pos
    state = torch.get_rng_state()
    assert torch.equal(draw(other).pos, second) and torch.equal(draw(one).pos, first)
    assert torch.equal(torch.get_rng_state(), state), "a seeded draw must not move the generator"
    assert not torch.equal(first, second)
    assert not torch.equal(RandomPixels(0.3, seed=8)(one).pos, first)
    free = RandomPixels(0.3)
    assert not torch.equal(free(one).pos, free(one).pos)
    torch.manual_seed(3)
    drawn = free(one).pos
    torch.manual_seed(3)
    assert torch.equal(free(one).pos, drawn)


def test_smallest_pictures_and_clouds_without_a_lattice():
    part = RandomPixels(0.1)(picture(1, 1))
    assert part.num_nodes == 1 and part.extent == (1, 1)
    cloud = RandomPixels(0.5, seed=-1)(Data(pos=torch.rand(9, 3)))
    assert cloud.num_nodes == 4 and "extent" not in cloud
    again = RandomPixels(0.5)(RandomPixels(0.5)(picture()))
    assert again.num_nodes == 20 and again.extent == (8, 10)


def test_mixed_sizes_in_a_batch():
    items = [RandomPixels(0.5)(picture(*size)) for size in [(1, 1), (2, 3), (4, 4)]]
    batch = next(iter(DataLoader(items, batch_size=3)))
    assert batch.extent == [(1, 1), (2, 3), (4, 4)] and batch.ptr.tolist() == [0, 1, 4, 12]
    assert [item.extent for item in batch.to_data_list()] == batch.extent


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_refuses_a_share(share):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        RandomPixels(share)


def test_refuses_what_has_no_points():
    with pytest.raises(ValueError, match="RandomPixels needs points with 'pos'"):
        RandomPixels(0.5)(Data(x=torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="no point to keep: the point set is empty"):
        RandomPixels(0.5)(Data(pos=torch.zeros(0, 2)))


def test_says_what_it_is():
    assert repr(RandomPixels(0.5, seed=1)) == "RandomPixels(0.5, seed=1)"


def test_a_seed_works_for_one_channel():
    image = torch.rand(1, 6, 7)
    first, second = (RandomPixels(0.3, seed=1)(ImageToPoints()(image)) for _ in range(2))
    assert torch.equal(first.pos, second.pos)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_a_seed_works_for_every_kind_of_number(dtype):
    whole = picture()
    whole.x = (255 * whole.x).to(dtype)
    first, second = (RandomPixels(0.3, seed=1)(whole) for _ in range(2))
    assert first.x.dtype == dtype and torch.equal(first.pos, second.pos)


def test_a_seed_draws_what_it_always_drew():
    whole = Data(pos=torch.zeros(12, 2), x=torch.arange(12.0).view(12, 1))
    assert RandomPixels(0.25, seed=1)(whole).x.flatten().tolist() == [5, 9, 11]


@pytest.mark.parametrize("seed", [None, 1])
def test_refuses_a_batch(seed):
    batch = Batch.from_data_list([picture(), picture(4, 4)])
    with pytest.raises(ValueError, match="takes one picture or cloud, found a batch of them"):
        RandomPixels(0.5, seed=seed)(batch)
    assert batch.num_nodes == 96
