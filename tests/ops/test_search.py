from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from pointcluster import ops
from pointcluster.ops import backend, use_backend
from pointcluster.ops.backend import available
from pointcluster.ops.search import dense, extensions, reference, trees
from pointcluster.ops.search.clouds import (
    cloud_index,
    numbered,
    on_device,
    pointers,
    smallest,
)
from tests.geometry.conftest import HERE, KINDS, make_points
from tests.geometry.truth import loop_fps, loop_knn

SIZES = {
    "equal": [40] * 5,
    "ragged": [33, 1, 0, 130, 8, 0],
    "one": [300],
    "a point each": [1, 1, 1],
    "empty": [0, 0],
    "no clouds": [],
}
DTYPES = [torch.float32, torch.float64]


class Elsewhere(torch.Tensor):
    """Takes the way of tensors that are not on the CPU."""


def batch_of(sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))


def case(sizes, kind="random", dim=3, dtype=torch.float32, share=0.4, seed=0):
    """Points, picks a cloud, where they start, queries (some of them points) and their number."""
    pos = make_points(kind, sum(sizes), dim, dtype, seed)
    nums = [-(-int(share * 10 * n) // 10) for n in sizes]
    start = torch.tensor([(seed + 7) % n if n else 0 for n in sizes], dtype=torch.int64)
    pick = torch.arange(0, sum(sizes), 3)
    query = pos[pick] + 0.25 * (pick % 2)[:, None]
    queries = torch.bincount(batch_of(sizes)[pick], minlength=len(sizes)).tolist()
    return pos, nums, start, query, queries


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [SIZES["ragged"], SIZES["a point each"]], ids=str)
def test_the_reference_is_what_loops_give(sizes, kind, dtype):
    pos, nums, start, query, queries = case(sizes, kind, 3, dtype)
    truth, begin = [], 0
    for n, m, first in zip(sizes, nums, start.tolist(), strict=True):
        if m:
            truth += [begin + i for i in loop_fps(pos[begin : begin + n].numpy(), m, first)]
        begin += n
    assert reference.fps(pos, sizes, nums, start).tolist() == truth
    batches = batch_of(sizes).tolist(), batch_of(queries).tolist()
    near = loop_knn(pos.numpy(), query.numpy(), 9, *batches)
    assert reference.knn(pos, query, 9, sizes, queries).tolist() == near.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_backend_gives_what_the_reference_gives(sizes, kind, dim, dtype):
    pos, nums, start, query, queries = case(sizes, kind, dim, dtype)
    for some in (nums, sizes, [1 if n else 0 for n in sizes]):
        truth, far = reference.fps(pos, sizes, some, start), reference.fps(pos, sizes, some)
        for name in [*HERE, "auto"]:
            assert ops.fps(pos, sizes, some, start, backend=name).equal(truth), name
            assert ops.fps(pos, sizes, some, backend=name).equal(far), name
        found = dense.fps(pos.as_subclass(Elsewhere), sizes, some, start)
        assert found.as_subclass(torch.Tensor).equal(truth)
    for k in (1, 9, max(sizes, default=3) or 3):
        truth = reference.knn(pos, query, k, sizes, queries)
        for name in [*HERE, "auto"]:
            assert ops.knn(pos, query, k, sizes, queries, backend=name).equal(truth), name
        found = dense.knn(pos.as_subclass(Elsewhere), query, k, sizes, queries)
        assert found.as_subclass(torch.Tensor).equal(truth)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    k=st.integers(1, 20),
    dim=st.integers(1, 4),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 1000),
)
def test_every_backend_on_grids_with_ties(sizes, k, dim, share, seed):
    pos, nums, start, query, queries = case(sizes, "lattice", dim, share=share, seed=seed)
    picks = reference.fps(pos, sizes, nums, start)
    near = reference.knn(pos, query, k, sizes, queries)
    for name in [*HERE, "auto"]:
        assert ops.fps(pos, sizes, nums, start, backend=name).equal(picks), name
        assert ops.knn(pos, query, k, sizes, queries, backend=name).equal(near), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 500, 1 << 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_pairs_in_blocks_of_any_size(monkeypatch, dtype, kind, chunk):
    sizes, queries = [120, 1, 0, 120, 7, 120], [9, 3, 0, 9, 9, 20]
    pos = make_points(kind, sum(sizes), 3, dtype)
    query = make_points(kind, sum(queries), 3, dtype, seed=1)
    monkeypatch.setattr(dense, "CHUNK_OF_CPU", chunk)
    found = dense.knn(pos, query, 10, sizes, queries)
    assert found.equal(reference.knn(pos, query, 10, sizes, queries))


@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 300),
    k=st.integers(1, 40),
    values=st.sampled_from([1, 3, 50, 10**6]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_the_smallest_by_value_and_place(rows, width, k, values, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    d = torch.randint(0, values, (rows, width), generator=generator).to(dtype)
    k = min(k, width)
    truth = d.sort(dim=1, stable=True).indices[:, :k]
    assert smallest(d, k).equal(truth)
    assert smallest(d.as_subclass(Elsewhere), k).as_subclass(torch.Tensor).equal(truth)


def test_ties_are_settled_where_every_row_is_tied():
    p = make_points("lattice", 300, 2, torch.float32).numpy()
    truth = loop_knn(p, p[:40], 12, [0] * 300, [0] * 40)
    assert np.array_equal(trees.settle(p, p[:40], 12), truth)


@pytest.mark.parametrize(
    "sizes", [[], [0, 0], [3, 3, 0, 0, 5], [0, 4, 4, 4, 2, 0], list(range(20))], ids=str
)
def test_sizes_as_tensors(sizes):
    cpu, batch = torch.device("cpu"), batch_of(sizes)
    assert on_device(sizes, cpu).tolist() == sizes
    assert cloud_index(sizes, cpu).equal(batch)
    assert pointers(sizes, cpu).tolist() == [sum(sizes[:c]) for c in range(len(sizes) + 1)]
    assert numbered(sizes, cpu).tolist() == [i for n in sizes for i in range(n)]


# Compiled extensions ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [False, True])
def test_a_kernel_that_strays_is_corrected(monkeypatch, wrong):
    sizes, nums = [30, 0, 30, 30], [10, 0, 10, 10]
    pos = make_points("lattice", 90, 3, torch.float32)

    def kernel(points, sizes, nums, backend):
        found = reference.fps(points, sizes, nums, torch.zeros(3, dtype=torch.int64))
        if wrong:
            found[[14, 15]] = found[[15, 14]]
        return found

    monkeypatch.setattr(extensions, "farthest", kernel)
    start = torch.tensor([3, 0, 0, 29])
    found = extensions.fps(pos, sizes, nums, start, "any")
    assert found.equal(reference.fps(pos, sizes, nums, start))


def test_the_right_sequence_is_known_from_a_wrong_one():
    pos = make_points("random", 60, 3, torch.float32)
    picks = reference.fps(pos, [60], [20], torch.zeros(1, dtype=torch.int64))
    assert extensions.is_farthest(pos, picks)
    for j in range(1, 20):
        bad = picks.clone()
        bad[j] = next(i for i in range(60) if i not in picks.tolist())
        assert not extensions.is_farthest(pos, bad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gives_up", [False, True])
def test_neighbours_of_a_kernel_are_put_in_order(monkeypatch, kind, gives_up):
    sizes, queries = [60, 5, 0, 90], [20, 5, 0, 30]
    pos = make_points(kind, sum(sizes), 3, torch.float32)
    query = pos[torch.arange(sum(sizes)).split(sizes)[3].new_tensor(range(55))]

    def kernel(pos, batch, query, query_batch, k, batch_size, backend):
        if gives_up:
            return torch.arange(3)
        sizes = torch.bincount(batch, minlength=batch_size).tolist()
        queries = torch.bincount(query_batch, minlength=batch_size).tolist()
        found = reference.knn(pos, query, k, sizes, queries)
        return found[:, [1, 0, *range(2, k)]].flatten()  # the first two in the wrong order

    monkeypatch.setattr(extensions, "nearest", kernel)
    for k in (3, 100):
        found = extensions.knn(pos, query, k, sizes, queries, "any")
        assert found.equal(reference.knn(pos, query, k, sizes, queries))


# Who answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [True, False])
def test_who_serves_with_and_without_numba(monkeypatch, here):
    pos, nums, start, query, queries = case([700])
    expected = ops.fps(pos, [700], nums, start), ops.knn(pos, query, 24, [700], queries)
    monkeypatch.setattr(backend, "available", lambda name: here and name == "numba")
    monkeypatch.setattr(backend.launch, "gpu_kernels", lambda device: False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert backend.search_backend("auto", cpu) == ("numba" if here else "torch")
    assert backend.search_backend("auto", cpu, large=True) == "kdtree"
    assert backend.search_backend("auto", gpu) == "torch"
    found = ops.fps(pos, [700], nums, start), ops.knn(pos, query, 24, [700], queries)
    for a, b in zip(found, expected, strict=True):
        assert a.equal(b)


def test_who_serves_a_gpu(monkeypatch):
    gpu, here = torch.device("cuda"), {"pyg-lib"}
    monkeypatch.setattr(backend, "available", here.__contains__)
    monkeypatch.setattr(backend.launch, "gpu_kernels", lambda device: False)
    assert backend.search_backend("auto", gpu) == "pyg-lib"
    here.add("torch-cluster")
    assert backend.search_backend("auto", gpu) == "torch-cluster"
    monkeypatch.setattr(backend.launch, "gpu_kernels", lambda device: device.type == "cuda")
    assert backend.search_backend("auto", gpu) == "triton"
    assert backend.search_backend("auto", torch.device("meta")) == "torch"


def test_large_clouds_and_many_axes(monkeypatch):
    asked = []

    def record(name, device, *, large=False):
        asked.append(large)
        return "torch"

    monkeypatch.setattr("pointcluster.ops.search.op.search_backend", record)
    for here, most in ((True, 320), (False, 144)):
        monkeypatch.setattr("pointcluster.ops.search.op.available", lambda _, here=here: here)
        for n, dim, k in ((1, 3, 1), (0, 3, 1), (1, 8, 1), (1, 9, 1), (1, 3, 2)):
            pos = torch.rand(most + n, dim)
            ops.knn(pos, pos[:2], k, [len(pos)], [2])
    assert asked == [True, False, True, False, False] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_large_clouds_go_to_trees_and_small_ones_among_them_to_loops(monkeypatch, workers):
    sizes, queries = [900, 40, 0, 850, 1, 330], [9, 40, 0, 300, 2, 5]
    pos, query = make_points("random", sum(sizes), 3, torch.float32), torch.rand(sum(queries), 3)
    expected, asked = reference.knn(pos, query, 9, sizes, queries), []
    tree = trees._kd_tree
    monkeypatch.setattr(trees, "_kd_tree", lambda *a: asked.append(len(a[0])) or tree(*a))
    monkeypatch.setattr(trees, "thread_count", lambda: workers)
    assert ops.knn(pos, query, 9, sizes, queries, backend="kdtree").equal(expected)
    assert sorted(asked) == [1, 40, 330, 850, 900]
    asked.clear()
    assert ops.knn(pos, query, 9, sizes, queries).equal(expected)
    assert sorted(asked) == ([850, 900] if available("numba") else [1, 40, 330, 850, 900])


@pytest.mark.parametrize("name", ["reference", "torch"])
def test_the_process_chooses(monkeypatch, name):
    module = {"reference": reference, "torch": dense}[name]
    pos, _, start, query, _ = case([3000])
    nums = [4]
    expected = ops.fps(pos, [3000], nums, start), ops.knn(pos, query[:9], 4, [3000], [9])
    asked = []
    for search in ("fps", "knn"):
        function = getattr(module, search)
        monkeypatch.setattr(module, search, lambda *a, f=function: asked.append(f) or f(*a))
    with use_backend(name):
        found = ops.fps(pos, [3000], nums, start), ops.knn(pos, query[:9], 4, [3000], [9])
    assert len(asked) == 2 and all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_bad_input():
    pos, start = torch.rand(9, 3), torch.zeros(2, dtype=torch.int64)
    for wrong in ([4, 4], [4, 5, 0], [9]):
        with pytest.raises(ValueError, match="9 points of 2 clouds need as many sizes"):
            ops.fps(pos, wrong, [1, 1], start)
    with pytest.raises(ValueError, match="nums must not be larger than sizes"):
        ops.fps(pos, [4, 5], [5, 5], start)
    if "numba" in HERE:  # whose loops would write beyond
        with pytest.raises(ValueError, match="starts must lie inside"):
            ops.fps(pos, [4, 5], [2, 2], start + 4, backend="numba")
    with pytest.raises(ValueError, match="query has 2 rows of 2 clouds, found 2 sizes"):
        ops.knn(pos, pos[:2], 3, [4, 5], [2, 1])
    with pytest.raises(ValueError, match="without points must have no queries"):
        ops.knn(pos, pos[:2], 3, [0, 9], [1, 1])
    with pytest.raises(ValueError, match="backend must be"):
        ops.knn(pos, pos[:2], 3, [4, 5], [1, 1], backend="magic")
    with pytest.raises(TypeError, match=r"all float32 or all float64, found .*float16"):
        ops.fps(pos.half(), [4, 5], [1, 1], start)
    with pytest.raises(TypeError, match="all float32 or all float64"):
        ops.knn(pos, pos[:2].double(), 3, [4, 5], [1, 1])


# One op for torch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_is_asked_for_nothing(sizes, dtype):
    _, nums, _, query, queries = case(sizes)
    with FakeTensorMode():
        pos = torch.empty(sum(sizes), 3, device="cuda", dtype=dtype)
        asking = torch.empty(len(query), 3, device="cuda", dtype=dtype)
        start = dense.farthest_from_mean(pos, sizes)
        assert start.shape == (len(sizes),) and start.device.type == "cuda"
        for fps, knn in ((dense.fps, dense.knn), (ops.fps, ops.knn)):
            for some in (nums, sizes):
                picks = fps(pos, sizes, some, start)
                assert picks.shape == (sum(some),) and picks.dtype == torch.int64
                assert picks.device.type == "cuda"
            for k in (1, 50):
                near = knn(pos, asking, k, sizes, queries)
                assert near.shape == (len(query), k) and near.device.type == "cuda"
        assert pointers(sizes, pos.device).shape == (len(sizes) + 1,)
        assert cloud_index(sizes, pos.device).shape == (sum(sizes),)


def searching(pos, query, sizes, nums, queries):
    anchors = ops.fps(pos, sizes, nums)
    near = ops.knn(pos, query, 4, sizes, queries)
    return pos[anchors].sum() + pos[near].sum()


@pytest.mark.parametrize("sizes", [SIZES["equal"], SIZES["ragged"]], ids=str)
def test_compilers_and_exports_see_one_op(sizes):
    pos, nums, _, query, queries = case(sizes)

    class Model(torch.nn.Module):
        def forward(self, pos, query):
            return searching(pos, query, sizes, nums, queries)

    def count(graph):
        targets = [str(node.target) for node in graph.nodes]
        return [sum(f"pointcluster.{name}" in t for t in targets) for name in ("fps", "knn")]

    graphs = []

    def compiler(module, inputs):
        graphs.append(module.graph)
        return module

    model = Model()
    expected = model(pos, query)
    assert torch.compile(model, fullgraph=True, backend=compiler)(pos, query).equal(expected)
    assert [count(graph) for graph in graphs] == [[1, 1]]
    program = torch.export.export(model, (pos, query))
    assert count(program.graph) == [1, 1]
    assert program.module()(pos, query).equal(expected)


def test_sizes_may_change_where_they_are_compiled_for_all():
    def search(pos):
        start = torch.zeros(1, dtype=torch.int64)
        picks = ops.fps(pos, [len(pos)], [5], start)
        return picks, ops.knn(pos, pos, 3, [len(pos)], [len(pos)])

    compiled = torch.compile(search, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (20, 31, 47):
        pos = make_points("random", n, 3, torch.float32)
        for a, b in zip(compiled(pos), search(pos), strict=True):
            assert a.equal(b)


@pytest.mark.parametrize("sizes", [SIZES["equal"], SIZES["ragged"]], ids=str)
def test_torchs_own_checks_of_the_ops(sizes):
    pos, nums, start, query, queries = case(sizes)
    sampling = pos, len(sizes), sizes, nums, start, "auto"
    asking = pos, query, 4, len(sizes), sizes, queries, "auto"
    torch.library.opcheck(torch.ops.pointcluster.fps, sampling)
    torch.library.opcheck(torch.ops.pointcluster.knn, asking)
    pos.requires_grad_()
    some = "test_schema", "test_autograd_registration", "test_faketensor"
    torch.library.opcheck(torch.ops.pointcluster.fps, sampling, test_utils=some)
    torch.library.opcheck(torch.ops.pointcluster.knn, asking, test_utils=some)


def test_indices_have_no_gradients():
    pos, nums, start, query, queries = case([40, 9])
    pos.requires_grad_()
    query.requires_grad_()
    assert not ops.fps(pos, [40, 9], nums, start).requires_grad
    assert not ops.knn(pos, query, 3, [40, 9], queries).requires_grad
