"""The compiled loops of the searches, where Numba is installed."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.geometry import fps, knn
from tests.geometry.conftest import KINDS, make_points
from tests.geometry.truth import loop_fps, loop_knn

loops = pytest.importorskip("pointcluster.ops.search.cpu_kernels", exc_type=ImportError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_farthest_agrees_with_the_loop(dtype, kind, n):
    pos = make_points(kind, n, 3, dtype).numpy()
    axes, num = np.ascontiguousarray(pos.T), min(n, 40)
    starts, first, picks = np.array([0, n]), np.array([n // 2]), np.array([0, num])
    out, whole = np.empty(num, np.int64), np.empty(0, f"i{axes.itemsize}")
    loops.farthest(axes, starts, first, picks, 0, 1, out, whole)
    assert out.tolist() == loop_fps(pos, num, n // 2)


@given(
    values=st.sampled_from([2, 5, 1000]),
    outlier=st.sampled_from([0.0, 1e3, 1e6]),
    n=st.integers(1, 400),
    k=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_neighbours_where_one_point_is_far_from_the_others(values, outlier, n, k, seed):
    # The far one's neighbours bound the next query's badly, and all others share one bucket.
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(0, values, (n, 2), generator=generator) / values
    pos[n // 2] += outlier
    near = max(0, n // 2 - 3)
    query = pos[near : n // 2 + 3]
    found = knn(pos, query, k, backend="numba")
    truth = loop_knn(pos.numpy(), query.numpy(), k, [0] * n, [0] * len(query))
    assert np.array_equal(found.numpy(), truth)


def test_parts_of_any_size_give_the_same(monkeypatch):
    threads = importlib.import_module("pointcluster.ops.search.threads")
    sizes = torch.tensor([300, 0, 1, 90, 200])
    batch = torch.arange(5).repeat_interleave(sizes)
    pos = make_points("lattice", int(sizes.sum()), 3, torch.float32)
    whole = knn(pos, pos, 9, batch, batch, backend="numba"), fps(pos, 0.3, batch, backend="numba")
    monkeypatch.setattr(threads, "STEPS_A_PART", 100)
    monkeypatch.setattr(threads, "thread_count", lambda: 3)
    parts = knn(pos, pos, 9, batch, batch, backend="numba"), fps(pos, 0.3, batch, backend="numba")
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_without_a_place_for_its_cache_it_compiles_anew(monkeypatch):
    asked = []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(loops, "njit", njit)
    assert loops._compiled(len) is len
    assert asked == [True, False]


def test_a_full_disk_is_no_reason_to_stop(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pos = make_points("lattice", 300, 3, torch.float32)
    wide = make_points("random", 60, 20, torch.float32)
    expected = knn(pos, pos, 9), fps(pos, 70), knn(wide, wide, 5)
    monkeypatch.setattr(loops, "nearest", full)
    monkeypatch.setattr(loops, "farthest", full)
    for found, truth in zip(
        (knn(pos, pos, 9), fps(pos, 70), knn(wide, wide, 5)), expected, strict=True
    ):
        assert torch.equal(found, truth)
    for search in (lambda: knn(pos, pos, 9, backend="numba"), lambda: fps(pos, 7, backend="numba")):
        with pytest.raises(OSError, match="No space"):
            search()
