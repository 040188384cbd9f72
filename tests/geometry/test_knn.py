from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.geometry import knn
from tests.geometry.conftest import HERE, KINDS, make_points
from tests.geometry.truth import loop_knn


def check(pos, query, k, batch, query_batch, backend, batch_size=None):
    found = knn(pos, query, k, batch, query_batch, batch_size=batch_size, backend=backend)
    truth = loop_knn(pos.numpy(), query.numpy(), k, batch.tolist(), query_batch.tolist())
    assert torch.equal(found, torch.from_numpy(truth))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_loop(backend, dtype, kind, dim):
    sizes = [110, 1, 0, 30, 7, 0]
    batch = torch.arange(6).repeat_interleave(torch.tensor(sizes))
    pos = make_points(kind, sum(sizes), dim, dtype)
    pick = torch.arange(0, sum(sizes), 9)
    query = torch.cat([pos[pick], pos[pick] + 0.25])
    query_batch, order = torch.cat([batch[pick], batch[pick]]).sort(stable=True)
    check(pos, query[order], 9, batch, query_batch, backend, batch_size=6)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_clouds(backend, dtype, kind):
    batch = torch.arange(3).repeat_interleave(130)
    pos = make_points(kind, 390, 3, dtype, seed=1)
    check(pos, pos[::9], 4, batch, batch[::9], backend)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    k=st.integers(1, 20),
    dim=st.integers(1, 4),
    step=st.sampled_from([0.5, 1.0, 1e-3]),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("name", HERE)
def test_every_backend_on_grids_with_ties(name, sizes, k, dim, step, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = step * torch.randint(0, 5, (sum(sizes), dim), generator=generator).float()
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    check(pos, pos, k, batch, batch, name, batch_size=len(sizes))


def test_middle_of_a_sphere_is_equally_far_from_all(backend):
    angle = torch.arange(400) * (2 * torch.pi / 400)
    pos = torch.stack([angle.cos(), angle.sin()], dim=1).mul(8).round()
    query = torch.zeros(2, 2)
    check(
        pos,
        query,
        30,
        torch.zeros(400, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
        backend,
    )


def test_a_hundred_thousand_coincident_points_cost_no_quadratic_memory():
    pos = torch.zeros(100_000, 3)
    pos[:50_000] = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))
    found = knn(pos, pos[60_000:60_010], 5)
    assert torch.equal(found, torch.arange(50_000, 50_005).expand(10, 5))


def test_half_precision_is_searched_in_float32():
    pos = make_points("random", 200, 3, torch.float32).half()
    assert torch.equal(knn(pos, pos, 3), knn(pos.float(), pos.float(), 3))


def test_no_queries():
    pos = torch.zeros(3, 2)
    assert knn(pos, pos[:0], 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"pos": torch.tensor([[0.0], [float("nan")]])}, ValueError, "first at point 1"),
        ({"pos": torch.tensor([[0.0], [float("inf")]])}, ValueError, "infinite"),
        ({"pos": torch.zeros(2, 1, dtype=torch.int64)}, TypeError, "floating"),
        ({"pos": torch.zeros(2)}, ValueError, r"shape [N, D]"),
        ({"batch": torch.tensor([1, 0])}, ValueError, "sorted"),
        ({"batch": torch.tensor([-1, 0])}, ValueError, "negative"),
        ({"batch": torch.tensor([0, 1, 1])}, ValueError, "one entry a point"),
        ({"batch": torch.tensor([0, 1], dtype=torch.int32)}, TypeError, "int64"),
        ({"batch": torch.zeros(2, dtype=torch.int64, device="meta")}, ValueError, "is on meta"),
        ({"batch": torch.tensor([0, 2]), "batch_size": 2}, ValueError, "batch_size is 2"),
        ({"query": torch.zeros(1, 2)}, ValueError, "agree in dimension"),
        ({"query": torch.zeros(1, 1, dtype=torch.float64)}, ValueError, "agree in dimension"),
        (
            {"batch": torch.tensor([1, 1]), "query_batch": torch.tensor([0])},
            ValueError,
            "cloud 0 has 1 queries",
        ),
        ({"query": torch.tensor([[1e25]])}, ValueError, "pos with query extends over 1e+25"),
        ({"pos": torch.tensor([[1e22], [1e22]])}, ValueError, "rescale the positions"),
        ({"pos": torch.tensor([[0.0], [1e30]])}, ValueError, "rescale the positions"),
        ({"pos": torch.tensor([[0.0], [1e-30]])}, ValueError, "rescale the positions"),
        ({"batch": torch.tensor([0, 0]), "batch_size": 2.0}, TypeError, "batch_size must"),
        ({"batch": torch.tensor([0, 0]), "batch_size": -1}, ValueError, "batch_size must"),
        ({"backend": "magic"}, ValueError, "backend must be"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"pos": torch.zeros(2, 1), "query": torch.zeros(1, 1), "k": 1} | change
    with pytest.raises(error, match=re.escape(message)):
        knn(**arguments)


def test_missing_backend_says_how_to_get_it(monkeypatch):
    from pointcluster.ops import backend

    monkeypatch.setattr(backend, "available", lambda name: False)
    with pytest.raises(ModuleNotFoundError, match="torch-cluster"):
        knn(torch.zeros(2, 1), torch.zeros(1, 1), 1, backend="torch-cluster")
