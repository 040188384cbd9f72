"""Triton's kernels of the context cluster give the answer of the reference."""

from __future__ import annotations

import pytest
import torch

from pointcluster.ops import Weights, context_cluster
from pointcluster.ops.context_cluster import gpu
from tests.ops.conftest import (  # noqa: F401 - the first is run here
    INTERPRETED,
    card,
    close,
    draw,
    gradients,
    make_regions,
    make_weights,
    second,
    test_by_the_interpreter,
)

pytestmark = pytest.mark.usefixtures("kernels")


@pytest.fixture
def chunks(monkeypatch):
    """No region is small enough for one program, and none for one step of it."""
    monkeypatch.setattr(gpu, "TILE_POINTS", 0)
    monkeypatch.setattr(gpu, "STEP_NUMBERS", 64)
    monkeypatch.setattr(gpu, "PROGRAMS", 1)


def case(sizes, kind, channels=6, heads=2, size=4, centers=3, k=5, out=8, seed=0):
    n = sum(sizes)
    x, residual = draw((n, channels), (n, out), seed=seed)
    regions = make_regions(sizes, centers, k, kind, seed)
    if regions.size is None:
        regions = regions._replace(most=max(sizes))
    inputs = [x, residual, *make_weights(channels, heads, size, out, seed)]
    return inputs, regions, heads


def run(inputs, regions, heads, dtype, backend, device="cpu"):
    regions = regions._replace(**{
        name: value.to(device) for name, value in regions._asdict().items()
        if isinstance(value, torch.Tensor)
    })  # fmt: skip

    def function(x, residual, *weights):
        y, *assigned = context_cluster(x, regions, Weights(*weights), heads, residual)
        seen.extend(each.cpu() for each in assigned)
        return y

    seen = []
    (slope,) = draw((len(inputs[0]), inputs[1].size(1)), seed=7)
    inputs = [each.to(device) for each in inputs]
    found = gradients(function, inputs, slope.to(device), dtype, backend)
    return *seen, [each.cpu() for each in found]


def agrees(inputs, regions, heads, dtype=torch.float32, tolerance=1e-4, true_regions=None):
    inputs = [each.to(dtype).float() for each in inputs]
    given = inputs, true_regions or regions, heads
    index, s, truth = run(*given, torch.float64, "reference")
    found_index, found_s, found = run(inputs, regions, heads, dtype, "auto", card)
    assert found_index.dtype == torch.int64 and found_s.dtype == torch.float32
    close(found_s, s, tolerance)
    assert torch.equal(found_index, index)
    for a, b in zip(found, truth, strict=True):
        assert a.dtype == dtype
        close(a, b, tolerance, 1.0)


# Few programs a case: by the interpreter one takes some hundredths of a second.
CASES = {
    "equal": ([9] * 3, "own", {}),
    "alike": ([9] * 3, "alike", {}),
    "dense": ([9] * 3, "dense", {"size": 7}),
    "ragged": ([5, 1, 12, 3, 7], "own", {"heads": 1}),
    "points": ([1] * 6, "own", {"centers": 1, "k": 3}),
    "lattice": ([49], "alike", {"size": 24, "channels": 20, "k": 16}),
    "large": ([20, 35], "own", {"heads": 1, "centers": 9, "k": 2}),
    "one": ([40], "own", {"heads": 1, "k": 50}),
}


@pytest.mark.parametrize("name", CASES)
def test_regions_of_few_points(name):
    sizes, kind, options = CASES[name]
    agrees(*case(sizes, kind, **options))


@pytest.mark.parametrize("name", ["alike", "ragged", "large", "one"])
def test_regions_in_chunks(chunks, name):
    sizes, kind, options = CASES[name]
    agrees(*case(sizes, kind, **{"heads": 1} | options))


@pytest.mark.parametrize("way", ["tiles", "chunks"])
def test_heads_one_after_another(way, request, monkeypatch):
    if way == "chunks":
        request.getfixturevalue("chunks")
    monkeypatch.setattr(gpu, "MOST_NUMBERS", 0)
    agrees(*case([5, 1, 12], "own", heads=3))


@pytest.mark.parametrize("way", ["tiles", "chunks"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_half_the_width(way, dtype, request):
    if way == "chunks":
        request.getfixturevalue("chunks")
    agrees(*case([12, 20], "own", heads=1), dtype, 4e-2 if dtype == torch.bfloat16 else 5e-3)


@pytest.mark.parametrize("way", ["tiles", "chunks"])
def test_regions_without_points(way, request):
    if way == "chunks":
        request.getfixturevalue("chunks")
    inputs, regions, heads = case([4, 0, 7], "own", heads=1)
    rows = torch.tensor([0, 2])
    fewer = regions._replace(
        group=regions.group[rows], filled=regions.filled[rows], ptr=torch.tensor([0, 4, 11]),
        closed=None if regions.closed is None else regions.closed[rows],
        of=torch.tensor([0] * 4 + [1] * 7),
    )  # fmt: skip
    agrees(inputs, regions, heads, true_regions=fewer)


@pytest.mark.parametrize("way", ["tiles", "chunks"])
@pytest.mark.parametrize("what", ["point", "grouping"])
def test_what_is_not_a_number_stays_in_its_region(way, what, request):
    if way == "chunks":
        request.getfixturevalue("chunks")
    (x, _, *weights), regions, heads = case([9] * 3, "own", heads=1)
    spoiled, wrong = x.clone(), regions
    if what == "point":
        spoiled[12] = torch.nan  # in region 1
    else:  # which has no tenth point
        wrong = regions._replace(group=regions.group.clone())
        wrong.group[1, 2, 0] = 9
    y = run([x, torch.zeros(27, 8), *weights], regions, heads, torch.float32, "auto", card)[2]
    z = run([spoiled, torch.zeros(27, 8), *weights], wrong, heads, torch.float32, "auto", card)[2]
    keep = torch.arange(27) // 9 != 1
    for a, b in zip(y[:2], z[:2], strict=True):
        torch.testing.assert_close(b[keep], a[keep], rtol=0, atol=1e-6)
    if what == "point":
        assert z[0][12].isnan().all()
    assert z[0].isnan().any()


def test_results_are_the_same_each_time(chunks):
    given = *case([20, 35], "own", heads=1), torch.float32, "auto", card
    first, again = run(*given)[2], run(*given)[2]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_second_derivatives():
    inputs, regions, heads = case([9, 7], "own", heads=1)

    def function(x, residual, *weights):
        return context_cluster(x, regions, Weights(*weights), heads, residual)[0]

    truth = second(function, inputs, torch.float64, "reference")
    for a, b in zip(second(function, inputs, torch.float32, "auto"), truth, strict=True):
        close(a, b, 1e-4, 1e-2)


@pytest.mark.parametrize("wide", [False, True])
def test_autocast_takes_half_the_width(wide):
    """As it does to linear maps, and gradients come back as the weights are."""
    (x, residual, *weights), regions, heads = case([12], "own", heads=1)
    x = x if wide else x.bfloat16()
    given = [each.requires_grad_() for each in (x, *weights)]
    with torch.autocast(card, torch.bfloat16):
        y, _, s = context_cluster(given[0], regions, Weights(*given[1:]), heads, residual)
        z = context_cluster(given[0], regions, Weights(*given[1:]), heads)[0]
    assert y.dtype == torch.float32 and z.dtype == torch.bfloat16 and s.dtype == torch.float32
    truth = context_cluster(x.double(), regions, Weights(*(w.double() for w in weights)), heads)[0]
    close(z, truth, 3e-2)
    grads = torch.autograd.grad(y.sum(), given)
    assert [g.dtype for g in grads] == [g.dtype for g in given]


@pytest.mark.parametrize("most", [12, None])
def test_torchs_own_checks_of_the_op(most):
    (x, residual, *weights), regions, heads = case([5, 12], "own", heads=1)
    given = [each.to(card).requires_grad_() for each in (x, *weights, residual)]
    regions = [each.to(card) if isinstance(each, torch.Tensor) else each for each in regions]
    torch.library.opcheck(
        torch.ops.pointcluster.context_cluster, (*given, *regions[:-1], most, heads),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip
