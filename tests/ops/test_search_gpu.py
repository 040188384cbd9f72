"""Triton's searches find exactly what the reference finds."""

from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import fps, knn
from pointcluster.ops.search import gpu, reference
from tests.ops.conftest import card, test_by_the_interpreter  # noqa: F401 - is run here

pytestmark = pytest.mark.usefixtures("kernels")
SIZES = [30, 0, 5, 25]


def lattice(n, dim, seed=0, side=4):
    """Points that coincide, and many that are as far."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(side, (n, dim), generator=generator).float()


def uniform(n, dim, seed=0):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed))


def same(search, *given):
    there = [each.to(card) if isinstance(each, torch.Tensor) else each for each in given]
    assert torch.equal(getattr(gpu, search)(*there).cpu(), getattr(reference, search)(*given))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_farthest_points(dim):
    start = torch.tensor([3, 0, 4, 0])
    same("fps", lattice(60, dim), SIZES, [10, 0, 5, 25], start)
    same("fps", uniform(60, dim), SIZES, [10, 0, 0, 1], start)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("most", [20, 100], ids=["large", "small"])
def test_from_the_point_farthest_from_the_mean(dim, most, monkeypatch):
    """Corners of a lattice are as far but for rounding: the first of them is taken."""
    monkeypatch.setattr(gpu, "IN_REGISTERS", most)
    monkeypatch.setattr(gpu, "STEP", 16)
    for pos in (uniform(60, dim), lattice(60, dim) / 3 + 1000, lattice(60, dim, side=2)):
        same("fps", pos, SIZES, [3, 0, 5, 2])


@pytest.mark.parametrize("dim", [2, 3])
def test_farthest_points_of_large_clouds(dim, monkeypatch):
    monkeypatch.setattr(gpu, "IN_REGISTERS", 20)
    monkeypatch.setattr(gpu, "STEP", 16)
    start = torch.tensor([3, 0, 4, 0])
    same("fps", lattice(60, dim), SIZES, [10, 0, 5, 7], start)
    same("fps", lattice(60, dim, side=2), SIZES, [9, 0, 0, 20], start)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("tile", [16, 64])
def test_nearest_points(dim, tile, monkeypatch):
    monkeypatch.setattr(gpu, "TILE", tile)
    pos, query = lattice(60, dim), lattice(9, dim, seed=1, side=5)
    for k in (1, 9):
        same("knn", pos, query, k, SIZES, [4, 0, 3, 2])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_nearest_points_of_large_clouds(dim, monkeypatch):
    monkeypatch.setattr(gpu, "ALL_PAIRS_UP_TO", 50)
    query = torch.cat([1.4 * uniform(7, dim, seed=1) - 0.2, uniform(2, dim, seed=2)])
    same("knn", uniform(130, dim), query, 5, [100, 30], [7, 2])


@pytest.mark.parametrize("what", ["ties", "one place", "a plane", "far away"])
def test_clouds_that_fill_cells_badly(what, monkeypatch):
    monkeypatch.setattr(gpu, "ALL_PAIRS_UP_TO", 50)
    monkeypatch.setattr(gpu, "REACH", 2)
    pos = lattice(90, 3, side=6) if what == "ties" else uniform(90, 3)
    if what == "one place":
        pos[:] = 1
    if what == "a plane":
        pos[:, 2] = 0
    if what == "far away":  # and one point makes all others lie in one cell
        pos[5] = 1000
    same("knn", pos, pos[:6], 7, [90], [6])


def test_what_kernels_are_made_for():
    assert gpu.fits(torch.zeros(4, 3), 16)
    for pos in (torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 4), torch.zeros(4, 0)):
        assert not gpu.fits(pos, 16)
    assert not gpu.fits(torch.zeros(4, 3), 1000)


def test_searches_of_the_geometry_take_them(monkeypatch):
    pos, batch = lattice(60, 3).to(card), torch.tensor([0] * 25 + [1] * 35, device=card)
    expected = fps(pos, 7, batch, backend="torch"), knn(pos, pos[:9], 3, batch, batch[:9])
    asked = []
    for name in ("fps", "knn"):
        search = getattr(gpu, name)
        monkeypatch.setattr(gpu, name, lambda *given, s=search: asked.append(s) or s(*given))
    found = fps(pos, 7, batch), knn(pos, pos[:9], 3, batch, batch[:9])
    assert len(asked) == 2 and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
