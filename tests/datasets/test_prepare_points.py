from __future__ import annotations

import pytest
import torch
from scipy.spatial import cKDTree
from torch_geometric.data import Data

from pointcluster.datasets.prepare_points import reduce_points, to_unit_sphere


def scan(size=5000, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(size, 3, generator=generator)
    normal = torch.nn.functional.normalize(pos, dim=1)
    return Data(pos=pos, normal=normal, color=1 - pos, origin=(1.0, 2.0, 3.0), **more)


@pytest.mark.parametrize("num", [1, 3, 64, 1000, 4999, 5000, 9000])
def test_as_many_as_asked_for_each_once(num):
    data = scan()
    out = reduce_points(data, num)
    assert out.num_nodes == min(num, 5000) and out.origin == data.origin
    rows = {tuple(row) for row in out.pos.tolist()}
    assert len(rows) == out.num_nodes and rows <= {tuple(row) for row in data.pos.tolist()}
    torch.testing.assert_close(out.normal, torch.nn.functional.normalize(out.pos, dim=1))
    assert torch.equal(out.color, 1 - out.pos)
    assert data.num_nodes == 5000


def test_spread_evenly_in_space_and_in_random_order():
    dense, sparse = scan(20_000).pos, scan(1000, seed=1).pos + torch.tensor([1.0, 0, 0])
    data = Data(pos=torch.cat([dense, sparse]), origin=(0.0,) * 3)
    out = reduce_points(data, 600).pos
    # Twenty times as dense, and about as many: a random choice would leave 29 of the sparse half.
    assert (out[:, 0] > 1).sum() > 200
    near = cKDTree(out.numpy()).query(out.numpy(), k=2)[0][:, 1]
    assert near.mean() > 0.06
    first = reduce_points(data, 600).pos[:300]
    assert 0.3 < float((first[:, 0] > 1).float().mean() / (out[:, 0] > 1).float().mean()) < 1.7


def test_the_seed_decides():
    for num in (100, 9000):
        first = reduce_points(scan(), num, seed=(1, 2)).pos
        assert torch.equal(first, reduce_points(scan(), num, seed=(1, 2)).pos)
        assert not torch.equal(first, reduce_points(scan(), num, seed=(1, 3)).pos)


def test_one_point_a_voxel():
    out = reduce_points(scan(), 5000, voxel_size=0.25)
    assert out.num_nodes == 64
    low = scan().pos.amin(dim=0)
    assert len(torch.unique(((out.pos - low) / 0.25).floor(), dim=0)) == 64
    assert reduce_points(scan(), 10, voxel_size=0.25).num_nodes == 10
    with pytest.raises(ValueError, match="side of a voxel must be positive"):
        reduce_points(scan(), 10, voxel_size=0.0)
    with pytest.raises(ValueError, match="num_points is 0"):
        reduce_points(scan(), 0)


def test_coincident_points_fill_up():
    data = Data(pos=torch.ones(50, 3), origin=(0.0,) * 3)
    assert reduce_points(data, 20).num_nodes == 20
    data.pos[0] = 2
    assert reduce_points(data, 20).num_nodes == 20
    assert (reduce_points(data, 20).pos == 2).any()


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_unit_sphere(shift):
    data = scan()
    data.pos = 7 * data.pos + shift
    out = to_unit_sphere(data)
    torch.testing.assert_close(out.pos.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)
    assert abs(float(out.pos.norm(dim=1).max()) - 1) < 1e-6
    back = out.pos.double() * out.scale + torch.tensor(out.origin, dtype=torch.float64)
    file = data.pos.double() + torch.tensor(data.origin, dtype=torch.float64)
    torch.testing.assert_close(back, file, atol=1e-6 * 7, rtol=0)
    assert torch.equal(out.normal, data.normal)


def test_unit_sphere_of_one_point():
    out = to_unit_sphere(Data(pos=torch.full((3, 3), 5.0), origin=(1.0, 0.0, 0.0)))
    assert out.pos.tolist() == [[0.0] * 3] * 3
    assert (out.scale, out.origin) == (1.0, (6.0, 5.0, 5.0))


def test_a_stray_point_moves_no_other_between_voxels():
    """Seen from it, float32 would round positions to half a metre."""
    steps = torch.arange(10) / 10 + 0.05
    pos = torch.cartesian_prod(steps, steps, steps)
    far = torch.tensor([[-500000.0, -5400000, -100]])
    data = Data(pos=torch.cat([pos, pos + 0.01, far]), origin=(0.0,) * 3)
    out = reduce_points(data, 5000, voxel_size=0.1)
    assert out.num_nodes == 1001
    assert len(torch.unique((out.pos[out.pos[:, 0] > 0] * 10).floor(), dim=0)) == 1000
