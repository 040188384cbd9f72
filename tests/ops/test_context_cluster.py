"""Every backend of the context cluster gives the answer of its reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.ops import Weights, context_cluster, gather_around, use_backend
from tests.ops.conftest import close, draw, gradients, here, make_regions, make_weights, second

SIZES = {"equal": [9] * 8, "ragged": [5, 1, 12, 3, 30, 7, 2], "points": [1] * 6, "one": [40]}


def case(sizes, kind, channels=6, heads=3, size=4, centers=4, k=5, out=8, seed=0):
    n = sum(sizes)
    x, residual = draw((n, channels), (n, out), seed=seed)
    regions = make_regions(sizes, centers, k, kind, seed)
    inputs = [x, residual, *make_weights(channels, heads, size, out, seed)]
    return inputs, regions, heads


def run(inputs, regions, heads, dtype, backend):
    def function(x, residual, *weights):
        y, *assigned = context_cluster(x, regions, Weights(*weights), heads, residual)
        seen.append(assigned)
        return y

    seen = []
    (slope,) = draw((len(inputs[0]), inputs[1].size(1)), seed=7)
    found = gradients(function, inputs, slope, dtype, backend)
    return *seen[0], found


@pytest.mark.parametrize("options", [
    {}, {"heads": 1, "size": 7}, {"centers": 1, "k": 3}, {"centers": 9, "heads": 2, "k": 2},
    {"channels": 20, "heads": 4, "size": 6, "out": 20}, {"k": 40},
], ids=str)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in SIZES for k in ("own", "alike", "dense") if k == "own" or n != "ragged"],
)
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("torch", torch.float64),
        ("torch", torch.float32),
        ("reference", torch.float32),
        pytest.param("cpu", torch.float32, marks=here),
    ],
)
def test_agrees_with_the_reference(backend, dtype, name, kind, options):
    inputs, regions, heads = case(SIZES[name], kind, **options)
    index, s, truth = run(inputs, regions, heads, torch.float64, "reference")
    found_index, found_s, found = run(inputs, regions, heads, dtype, backend)
    assert found_index.dtype == torch.int64 and found_s.dtype == dtype
    assert torch.equal(found_index, index)
    exact = dtype == torch.float64
    close(found_s, s, 1e-13 if exact else 2e-5)
    for a, b in zip(found, truth, strict=True):
        assert a.dtype == dtype
        close(a, b, 1e-12 if exact else 1e-4, 1.0)


@here
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=13),
    alike=st.booleans(),
    channels=st.integers(1, 20),
    heads=st.integers(1, 5),
    size=st.integers(2, 9),
    centers=st.integers(1, 5),
    k=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_kernels_agree_for_any_sizes(sizes, alike, channels, heads, size, centers, k, seed):
    sizes = sizes[:1] * len(sizes) if alike else sizes
    inputs, regions, heads = case(
        sizes, "alike" if alike else "own", channels, heads, size, centers, k, channels, seed
    )
    index, s, truth = run(inputs, regions, heads, torch.float64, "reference")
    found_index, found_s, found = run(inputs, regions, heads, torch.float32, "cpu")
    close(found_s, s, 5e-5)
    if not torch.equal(found_index, index):
        return  # of two centres as near as rounding, as their similarities have shown
    for a, b in zip(found, truth, strict=True):
        close(a, b, 5e-4, 1.0)  # some lengths are near 0, and some gradients cancel


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
@pytest.mark.parametrize("name", ["equal", "ragged"])
def test_second_derivatives(name, backend):
    inputs, regions, heads = case(SIZES[name], "own")

    def function(x, residual, *weights):
        return context_cluster(x, regions, Weights(*weights), heads, residual)[0]

    truth = second(function, inputs, torch.float64, "reference")
    for a, b in zip(second(function, inputs, torch.float32, backend), truth, strict=True):
        close(a, b, 1e-4, 1e-2)


@pytest.mark.parametrize("name", ["equal", "ragged"])
def test_the_four_steps_alone(name):
    inputs, regions, heads = case(SIZES[name], "own")
    x, _, *weights = (each.double() for each in inputs)
    w = Weights(*weights)
    f, v = (x @ w.fv.t() + w.fv_bias).view(len(x), 2, heads, -1).unbind(1)
    for backend in ("reference", "torch"):
        with use_backend(backend):
            y, index, s = gather_around(f, v, regions, w.alpha, w.beta)
            whole, *assigned = context_cluster(x, regions, w, heads)
        torch.testing.assert_close(y.flatten(1) @ w.out.t() + w.out_bias, whole)
        assert torch.equal(index, assigned[0])
        torch.testing.assert_close(s, assigned[1])


@here
def test_gradients_of_weights_are_the_same_each_time():
    inputs, regions, heads = case([32] * 60, "dense", 16, 4, 8, out=16)
    first = run(inputs, regions, heads, torch.float32, "cpu")[2]
    for _ in range(3):
        again = run(inputs, regions, heads, torch.float32, "cpu")[2]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@here
def test_without_a_residual_and_in_inference_mode():
    (x, residual, *weights), regions, heads = case(SIZES["ragged"], "own")
    with torch.inference_mode(), use_backend("cpu"):
        y = context_cluster(x, regions, Weights(*weights), heads)[0]
        total = context_cluster(x, regions, Weights(*weights), heads, residual)[0]
    torch.testing.assert_close(y + residual, total, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
@pytest.mark.parametrize("kind", ["own", "alike"])
def test_what_is_not_a_number_stays_in_its_region(backend, kind):
    (x, _, *weights), regions, heads = case([9] * 8, kind)
    spoiled = x.clone()
    spoiled[30] = torch.nan  # in region 3
    with use_backend(backend):
        y, z = (context_cluster(t, regions, Weights(*weights), heads)[0] for t in (x, spoiled))
    keep = torch.arange(72) // 9 != 3
    torch.testing.assert_close(z[keep], y[keep], rtol=0, atol=1e-6)
    assert z[30].isnan().all()


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
def test_points_of_length_zero(backend):
    inputs, regions, heads = case(SIZES["equal"], "alike")
    inputs[0] = torch.zeros_like(inputs[0])
    inputs[3] = torch.zeros_like(inputs[3])  # every f and every centre is 0
    truth = run(inputs, regions, heads, torch.float64, "reference")[2]
    for a, b in zip(run(inputs, regions, heads, torch.float32, backend)[2], truth, strict=True):
        close(a, b, 1e-4, 1.0)


# What does not fit --------------------------------------------------------------------------------


@here
@pytest.mark.parametrize("wrong", [-1, 9, 10**12])
@pytest.mark.parametrize("kind", ["own", "alike"])
def test_a_grouping_of_points_that_are_not_there(wrong, kind):
    (x, _, *weights), regions, heads = case([9] * 8, kind)
    regions.group[-1, 1, 0] = wrong
    with use_backend("cpu"), pytest.raises(IndexError, match="its region does not have"):
        context_cluster(x, regions, Weights(*weights), heads)


@here
@pytest.mark.parametrize("ptr", [[0, 3, 72], [0, 80], [0, 40, 30, 72], [5, 72]])
def test_bounds_that_cut_no_points(ptr):
    (x, _, *weights), regions, heads = case([9] * 8, "own")
    rows = len(ptr) - 1
    regions = regions._replace(
        ptr=torch.tensor(ptr), group=regions.group[:rows], filled=regions.filled[:rows], closed=None
    )
    if ptr == [0, 3, 72]:  # they do, but the groupings are of smaller regions
        regions.group[0] = 8
    with use_backend("cpu"), pytest.raises((ValueError, IndexError), match="rise|does not have"):
        context_cluster(x, regions, Weights(*weights), heads)


@pytest.mark.parametrize("change", [
    {"fv_bias": torch.zeros(3)}, {"fv": torch.zeros(24, 5)}, {"fv": torch.zeros(20, 6)},
    {"out": torch.zeros(8, 11)}, {"out_bias": torch.zeros(7)},
    {"residual": torch.zeros(71, 8)}, {"residual": torch.zeros(72, 7)},
    {"x": torch.zeros(72, 5)}, {"closed": torch.zeros(7, 4, dtype=torch.bool)},
], ids=lambda change: next(iter(change)))  # fmt: skip
def test_shapes_that_do_not_fit_are_torchs_error(change):
    (x, residual, *weights), regions, heads = case([9] * 8, "own")
    w = Weights(*weights)
    fields = {name: value for name, value in change.items() if name in Weights._fields}
    w = w._replace(**fields)
    if "closed" in change:
        regions = regions._replace(closed=change["closed"])
    with pytest.raises(RuntimeError):
        context_cluster(change.get("x", x), regions, w, heads, change.get("residual", residual))


@here
def test_regions_larger_than_a_thread_takes_go_by_torch(monkeypatch):
    from pointcluster.ops.context_cluster import cpu

    inputs, regions, heads = case(SIZES["ragged"], "own")
    truth = run(inputs, regions, heads, torch.float32, "cpu")
    monkeypatch.setattr(cpu, "LARGEST", 20)
    monkeypatch.setattr(cpu, "context_cluster", None)
    found = run(inputs, regions, heads, torch.float32, "cpu")
    assert torch.equal(found[0], truth[0])
    for a, b in zip(found[2], truth[2], strict=True):
        close(a, b, 1e-4, 1.0)


@here
def test_torchs_own_checks_of_the_op():
    for sizes in ([9] * 8, [5, 1, 12, 30]):
        (x, residual, *weights), regions, heads = case(sizes, "own")
        given = [each.requires_grad_() for each in (x, *weights, residual)]
        torch.library.opcheck(
            torch.ops.pointcluster.context_cluster, (*given, *regions, heads),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )  # fmt: skip
