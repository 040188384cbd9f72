"""Triton's kernels compile for GPUs that are not there, into few enough registers."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from pointcluster.ops.context_cluster import gpu as context_cluster
from pointcluster.ops.gather_max import gpu as gather_max
from pointcluster.ops.norm import gpu as norm
from pointcluster.ops.search import gpu as search
from tests.ops.compiled import compile_all
from tests.ops.conftest import draw, make_regions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled"),
]


@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.bfloat16), (90, torch.float32)])
@pytest.mark.parametrize("sizes", [[24] * 3, [5, 4000]], ids=["tiles", "chunks"])
def test_context_cluster(monkeypatch, sizes, capability, dtype):
    from pointcluster.ops.context_cluster import gpu_kernels

    seen = compile_all(gpu_kernels, monkeypatch, capability)
    regions = make_regions(sizes, 4, 9)._replace(most=max(sizes))
    fv, one = torch.zeros(sum(sizes), 96, dtype=dtype), torch.ones(1)
    y, *assigned = context_cluster.gather_around(fv, regions, one, one, 2)
    context_cluster.gather_around_backward(fv, regions, one, 2, *assigned, y)
    names = {each.name for each in seen}
    tiles = {"tile_forward", "tile_backward"}
    assert names == tiles or names >= {"chunk_assign", "chunk_backward", "add_chunks", "spread"}


@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.bfloat16), (90, torch.float32)])
def test_gather_max(monkeypatch, capability, dtype):
    from pointcluster.ops.gather_max import gpu_kernels

    seen = compile_all(gpu_kernels, monkeypatch, capability)
    given = [each.to(dtype) for each in draw((30, 64), (20, 24, 16), (64, 16))]
    index = torch.zeros(20, 24, dtype=torch.int64)
    y, which = gather_max.gather_max(*given, index)
    gather_max.gather_max_backward(30, *given[1:], index, which, y, (True, True, True))
    assert {each.name for each in seen} == {"forward", "to_points", "to_relative", "to_weight"}


@pytest.mark.parametrize("capability", [80, 90])
def test_search(monkeypatch, capability):
    from pointcluster.ops.search import gpu_kernels

    seen = compile_all(gpu_kernels, monkeypatch, capability)
    monkeypatch.setattr(torch, "add", lambda *given, **options: None)  # of what is not there
    sizes, pos, start = [1024, 20_000], torch.zeros(21_024, 3), torch.zeros(2, dtype=torch.int64)
    search.fps(pos, sizes, [2, 2], start)
    search.fps(pos[:1024], sizes[:1], [2])
    search.knn(pos, pos, 16, sizes, sizes)
    names = {"farthest", "farthest_step", "nearest", "nearest_cells"}
    assert {each.name for each in seen} == names


@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.bfloat16), (90, torch.float32)])
def test_norm(monkeypatch, capability, dtype):
    from pointcluster.ops.norm import gpu_kernels

    seen = compile_all(gpu_kernels, monkeypatch, capability)
    x, one = torch.zeros(90, 196, dtype=dtype), torch.ones(196)
    for clouds in ((None, 3, 30), (torch.zeros(90, dtype=torch.int64), 3, None)):
        y, mean, scale = norm.cloud_norm(x, one, one, *clouds, 1e-5)
        norm.cloud_norm_backward(x, one, mean, scale, *clouds, y)
    assert {each.name for each in seen} == {"statistics", "normalise", "sums", "backward"}
