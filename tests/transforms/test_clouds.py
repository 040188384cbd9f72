from __future__ import annotations

import itertools

import pytest
import torch
from scipy.spatial import cKDTree
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeScale

from pointcluster.transforms import (
    FirstPoints,
    NormalsAsFeatures,
    RandomAnisotropicScale,
    RandomMirror,
    RandomRotateUp,
    RandomTranslate,
    TurnUp,
    UnitCube,
)
from pointcluster.transforms.clouds import AXES, reduce_points, to_unit_sphere

# --- FirstPoints ---------------------------------------------------------------------------------


def test_keeps_every_attribute_in_step():
    pos = torch.arange(12.0).view(4, 3)
    data = Data(pos=pos, normal=-pos, x=pos[:, :2], y=torch.tensor([1]), name="a")
    cut = FirstPoints(3)(data)
    assert torch.equal(cut.pos, pos[:3])
    assert torch.equal(cut.normal, -pos[:3])
    assert torch.equal(cut.x, pos[:3, :2])
    assert (cut.y.tolist(), cut.name) == ([1], "a")
    assert data.pos.size(0) == 4  # the item that came in is as it was


def test_small_clouds_stay():
    data = Data(pos=torch.ones(1, 3), y=torch.tensor([1]))
    cut = FirstPoints(5)(data)
    assert (cut.pos.shape, cut.y.shape) == ((1, 3), (1,))


def test_number_of_points_is_positive():
    with pytest.raises(ValueError, match="num is 0"):
        FirstPoints(0)


# --- NormalsAsFeatures ---------------------------------------------------------------------------


def test_appends_normals():
    normal = torch.rand(4, 3)
    data = Data(pos=torch.rand(4, 3), normal=normal)
    assert torch.equal(NormalsAsFeatures()(data).x, normal)
    data.x = torch.ones(4, 2)
    x = NormalsAsFeatures()(data).x
    assert torch.equal(x, torch.cat([torch.ones(4, 2), normal], dim=1))


def test_without_normals():
    with pytest.raises(ValueError, match="no attribute 'normal'"):
        NormalsAsFeatures()(Data(pos=torch.rand(4, 3)))


# --- RandomTranslate -----------------------------------------------------------------------------


def test_moves_all_points_by_one_vector():
    pos = torch.randn(9, 3)
    data = RandomTranslate(0.2)(Data(pos=pos, normal=pos.clone()))
    shift = data.pos - pos
    assert torch.allclose(shift, shift[:1].expand(9, 3), atol=1e-6)
    assert 0 < shift.abs().max() <= 0.2 + 1e-6
    assert torch.equal(data.normal, pos)


def test_bad_distance():
    with pytest.raises(ValueError, match="expected at least 0"):
        RandomTranslate(-1.0)


# --- RandomAnisotropicScale ----------------------------------------------------------------------


def test_factors_are_in_range_and_differ():
    data = RandomAnisotropicScale(0.5, 2.0)(Data(pos=torch.ones(5, 3)))
    factors = data.pos[0]
    assert torch.equal(data.pos, factors.expand(5, 3))
    assert ((factors >= 0.5) & (factors <= 2)).all()
    assert len(set(factors.tolist())) == 3


def test_normals_stay_perpendicular_to_the_surface():
    # two tangents of a plane, and its normal
    u, v = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([-1.0, 0.3, 1.0])
    normal = torch.nn.functional.normalize(torch.linalg.cross(u, v), dim=0)
    data = RandomAnisotropicScale(0.5, 2.0)(
        Data(pos=torch.stack([u, v]), normal=normal.expand(2, 3))
    )
    assert (data.pos * data.normal).sum(1).abs().max() < 1e-6
    assert torch.allclose(data.normal.norm(dim=1), torch.ones(2))


def test_bad_range():
    with pytest.raises(ValueError, match="expected 0 < low <= high"):
        RandomAnisotropicScale(2.0, 1.0)


# --- RandomMirror --------------------------------------------------------------------------------


def test_mirrors_positions_and_normals_or_leaves_both():
    pos, normal = torch.randn(9, 3), torch.randn(9, 3)
    sign = torch.tensor([1.0, -1.0, 1.0])
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        data = RandomMirror(1)(Data(pos=pos, normal=normal))
        mirrored = torch.equal(data.pos, pos * sign)
        assert mirrored or torch.equal(data.pos, pos)
        assert torch.equal(data.normal, normal * sign if mirrored else normal)
        seen.add(mirrored)
    assert seen == {True, False}


def test_probabilities():
    pos = torch.randn(4, 3)
    assert torch.equal(RandomMirror(p=0)(Data(pos=pos)).pos, pos)
    assert torch.equal(RandomMirror(p=1)(Data(pos=pos)).pos[:, 0], -pos[:, 0])


@pytest.mark.parametrize("options", [{"axis": 3}, {"p": 1.5}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="expected"):
        RandomMirror(**options)


# --- RandomRotateUp ------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_positions_and_normals_alike(axis):
    pos = torch.randn(20, 3, dtype=torch.float64)
    data = RandomRotateUp(axis=axis)(Data(pos=pos, normal=pos.clone()))
    assert torch.equal(data.pos, data.normal)
    assert torch.equal(data.pos[:, axis], pos[:, axis])
    assert not torch.allclose(data.pos, pos)
    # a turn keeps all dot products and all triple products
    assert torch.allclose(data.pos @ data.pos.T, pos @ pos.T)
    assert torch.allclose(torch.linalg.det(data.pos[:3]), torch.linalg.det(pos[:3]))


def test_angle_is_in_range():
    for _ in range(50):
        data = RandomRotateUp(10.0)(Data(pos=torch.tensor([[1.0, 0.0, 0.0]])))
        assert data.pos[0, 0] >= torch.cos(torch.tensor(10.0).deg2rad()) - 1e-6


def test_bad_axis():
    with pytest.raises(ValueError, match="axis is 3"):
        RandomRotateUp(axis=3)


# --- TurnUp --------------------------------------------------------------------------------------


def unit(axis):
    out = torch.zeros(1, 3)
    out[0, "xyz".index(axis[-1])] = -1 if axis[0] == "-" else 1
    return out


@pytest.mark.parametrize(("old", "new"), list(itertools.product(AXES, AXES)))
def test_takes_one_axis_to_the_other_by_a_turn(old, new):
    eye = torch.eye(3, dtype=torch.float64)
    turn = TurnUp(old, new)(Data(pos=eye.clone(), normal=torch.eye(3)))
    assert turn.pos.dtype == torch.float64 and torch.equal(turn.pos.float(), turn.normal)
    torch.testing.assert_close(turn.pos @ turn.pos.T, eye)
    assert torch.linalg.det(turn.pos) == 1  # no mirror image
    assert torch.equal(TurnUp(old, new)(Data(pos=unit(old))).pos, unit(new))
    back = TurnUp(new, old)(TurnUp(old, new)(Data(pos=eye.clone())))
    torch.testing.assert_close(back.pos, eye)


def test_scans_to_modelnet():
    data = TurnUp("z")(Data(pos=torch.tensor([[1.0, 2, 3]])))
    assert data.pos.tolist() == [[1, 3, -2]]
    assert repr(TurnUp("z")) == "TurnUp('z', 'y')"


@pytest.mark.parametrize(("old", "new"), [("z", "y"), ("x", "-x"), ("-y", "z")])
def test_an_origin_far_away_turns_with_its_positions_and_keeps_its_digits(old, new):
    origin = (500000.123456789, 5400000.987654321, 100.5)
    turn = TurnUp(old, new)
    turned = turn(Data(pos=torch.tensor([[1.0, 2, 3]]), origin=origin))
    whole = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    whole = turn(Data(pos=whole + torch.tensor(origin, dtype=torch.float64))).pos
    assert isinstance(turned.origin, tuple)
    found = turned.pos.double() + torch.tensor(turned.origin, dtype=torch.float64)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-9)


def test_arguments():
    with pytest.raises(ValueError, match="axis is 'up', expected one of x y z"):
        TurnUp("up")
    with pytest.raises(ValueError, match="axis is 1"):
        TurnUp("x", 1)


# --- UnitCube ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [2, 3])
def test_as_pygs_to_the_last_bit(dtype, dim):
    pos = 7 * torch.randn(50, dim, generator=torch.Generator().manual_seed(0), dtype=dtype) + 3
    data = Data(pos=pos, y=torch.tensor([2]))
    found = UnitCube()(data)
    assert torch.equal(found.pos, NormalizeScale()(Data(pos=pos)).pos) and found.y == 2
    assert 0.99 < float(found.pos.abs().max()) < 1
    assert torch.equal(data.pos, pos)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_points_that_coincide_and_none(count):
    found = UnitCube()(Data(pos=torch.full((count, 3), 5.0)))
    assert torch.equal(found.pos, torch.zeros(count, 3))
    assert repr(UnitCube()) == "UnitCube()"


# --- reduce_points, to_unit_sphere ---------------------------------------------------------------


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
