"""Layers worked out together agree with torch's operations, and leave these where they must."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pointcluster.models import create_model
from pointcluster.nn import PointReducer, fused, lifted
from pointcluster.nn.block import _LeanMLP
from pointcluster.nn.lifted import lifted_cluster
from pointcluster.nn.point_reducer import _GatherMax

here = pytest.mark.skipif(fused._torch() is None, reason="needs Numba, OpenMP's team and MKL")


@pytest.fixture
def absent(monkeypatch):
    """As where Numba is not installed."""
    monkeypatch.setattr(fused, "available", lambda _: False)
    fused._torch.cache_clear()
    yield
    fused._torch.cache_clear()


def close(found, truth, tolerance=2e-5, least=1e-6):
    """Equal up to float32's rounding, measured by the largest number, or a larger one."""
    assert found.shape == truth.shape and found.dtype == torch.float32
    if truth.numel():
        error = (found.double() - truth).abs().max()
        assert error <= tolerance * truth.abs().max().clamp_min(least), float(error)


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def gradients(function, inputs, weight, dtype):
    inputs = [each.to(dtype).requires_grad_() for each in inputs]
    y = function(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, weight.to(dtype))]


# MLP ---------------------------------------------------------------------------------------------


def gelu(x):
    """GELU as the fused MLP works it out, one number a row, and its slope."""
    one, zero, x = torch.ones(1, 1), torch.zeros(1), x[:, None].contiguous()
    y = fused.mlp(x, one, zero, one, zero, None)
    return y[:, 0], fused.mlp_backward(x, one, zero, one, torch.ones_like(x))[0][:, 0]


@here
def test_gelu_is_as_precise_as_torchs():
    x = torch.cat(
        [torch.linspace(-12, 12, 200_001), *(draw(20_000)[0] * 10.0**e for e in (-30, -3, 0))]
    )
    wide = x.double().requires_grad_()
    truth = F.gelu(wide)
    (slope,) = torch.autograd.grad(truth.sum(), wide)
    own = x.clone().requires_grad_()
    (torchs,) = torch.autograd.grad(F.gelu(own).sum(), own)
    found, found_slope = gelu(x)
    truth, wide = truth.detach(), wide.detach()
    scale = wide.abs().clamp_min(1)

    def worst(value, truth):
        return float(((value.double() - truth).abs() / scale).max())

    assert worst(found, truth) <= worst(F.gelu(x), truth) + 2.4e-7
    assert worst(found_slope, slope) <= worst(torchs, slope) + 4.8e-7
    near = x.abs() < 0.5  # and relative to the value, where it is small
    assert ((found.double() - truth) / truth).abs()[near & (x != 0)].max() < 5e-7


@here
def test_gelu_of_extremes():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor(
        [inf, -inf, nan, 0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, 3e38, -3e38, 88.0, -88.0]
    )
    found, slope = gelu(x)
    # By the formula: what torch itself makes of infinity differs from processor to processor.
    below = [0.5 * (1 + math.erf(each / math.sqrt(2))) for each in x.tolist()]
    truth = torch.tensor([each * part for each, part in zip(x.tolist(), below, strict=True)])
    torch.testing.assert_close(found, truth, rtol=0, atol=0, equal_nan=True)
    steep = x.double() * (-0.5 * x.double() ** 2).exp() / math.sqrt(2 * math.pi)
    finite = x.isfinite()
    expected = (torch.tensor(below, dtype=torch.float64) + steep).float()
    torch.testing.assert_close(slope[finite], expected[finite], rtol=0, atol=2e-7)
    assert slope[2].isnan()


def mlp_inputs(rows, channels, hidden, out, seed=0):
    return draw(
        (rows, channels),
        (hidden, channels),
        (hidden,),
        (out, hidden),
        (out,),
        (rows, out),
        seed=seed,
    )


@here
@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 300),
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(1, 40),
    st.integers(0, 9),
)
def test_mlp_agrees_with_float64(rows, channels, hidden, out, seed):
    inputs = mlp_inputs(rows, channels, hidden, out, seed)
    (weight,) = draw((rows, out), seed=seed + 1)

    def plain(x, w1, b1, w2, b2, onto):
        return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2) + onto

    truth = gradients(plain, inputs, weight, torch.float64)
    found = gradients(_LeanMLP.apply, inputs, weight, torch.float32)
    for a, b in zip(found, truth, strict=True):
        close(a, b, least=1.0)
    x, w1, b1, w2, b2, onto = inputs
    alone = _LeanMLP.apply(x, w1, b1, w2, b2, None)
    close(alone, truth[0] - onto.double())


@here
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_many_threads_as_torch_has_and_the_same_answer(threads, monkeypatch):
    inputs, given, before = mlp_inputs(1000, 16, 64, 16), [], torch.get_num_threads()
    real = fused._torch()
    (weight,) = draw((1000, 16), seed=1)

    def team(function, data, count, flags):
        given.append(count)
        real.team(function, data, count, flags)

    truth = gradients(_LeanMLP.apply, inputs, weight, torch.float64)
    monkeypatch.setattr(fused, "_torch", lambda: real._replace(team=team))
    try:
        torch.set_num_threads(threads)
        found = gradients(_LeanMLP.apply, inputs, weight, torch.float32)
        again = gradients(_LeanMLP.apply, inputs, weight, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert given == [threads] * 4
    for a, b, c in zip(found, again, truth, strict=True):
        assert torch.equal(a, b)
        close(a, c)


# Context cluster ---------------------------------------------------------------------------------


def cluster_inputs(regions, points, channels, heads, size, centers, own, seed=0):
    width = heads * size
    x, w, b, p, last, onto = draw(
        (regions, points, channels), (2 * width, channels), (2 * width,), (channels, width),
        (channels,), (regions, points, channels), seed=seed,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    pool = torch.rand(regions if own else 1, centers, points, generator=generator)
    count = None if own else 1 + torch.rand(centers, 1, generator=generator)
    repeats = torch.rand(regions, centers, generator=generator) > 0.6 if own else None
    if repeats is not None:
        repeats[:, 0] = False
    alpha, beta = torch.tensor([1.5 - 3 * (seed % 2)]), torch.tensor([0.2])
    return [x, w, b, p, last, alpha, beta, onto], (pool, count, repeats, heads)


def run_cluster(function, inputs, fixed, dtype):
    inputs = [each.to(dtype).requires_grad_() for each in inputs]
    x, w, b, p, last, alpha, beta, onto = inputs
    pool, count, repeats, heads = fixed
    count = None if count is None else count.to(dtype)
    y, index, s = function(
        x, (w, b), (p, last), (alpha, beta), pool.to(dtype), count, repeats, heads, onto
    )
    weight = torch.linspace(-1, 1, y.numel(), dtype=dtype).sin().view_as(y)
    return index, s.detach(), [y.detach(), *torch.autograd.grad(y, inputs, weight)]


def one_wins_clearly(inputs, fixed):
    """Whether in float64 no two centres are so near that rounding would choose between them."""
    truth = run_cluster(lifted._lifted, inputs, fixed, torch.float64)[0]
    for seed in range(8):
        noise = draw(*(each.shape for each in inputs), seed=seed)
        near = [a.double() * (1 + 1e-4 * b) for a, b in zip(inputs, noise, strict=True)]
        if not torch.equal(truth, run_cluster(lifted._lifted, near, fixed, torch.float64)[0]):
            return False
    return True


@here
@settings(deadline=None, max_examples=40)
@given(
    st.integers(4, 13), st.integers(1, 60), st.integers(1, 20), st.integers(1, 5),
    st.integers(2, 9), st.integers(1, 5), st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_cluster_agrees_with_float64(regions, points, channels, heads, size, centers, own, seed):
    inputs, fixed = cluster_inputs(regions, points, channels, heads, size, centers, own, seed)
    if not one_wins_clearly(inputs, fixed):
        return
    assert fused.serves(*inputs)
    index, s, truth = run_cluster(lifted._lifted, inputs, fixed, torch.float64)
    found_index, found_s, found = run_cluster(lifted_cluster, inputs, fixed, torch.float32)
    torch.testing.assert_close(found_s.double(), s, rtol=0, atol=2e-5)
    if not torch.equal(found_index, index):
        return  # of two centres as near as rounding, as their similarities have shown
    for a, b in zip(found, truth, strict=True):
        close(a, b, 2e-4, 1.0)  # some lengths are near 0, and some gradients cancel
    close(found[0], truth[0])


@here
def test_cluster_without_other_features_and_in_inference_mode():
    inputs, fixed = cluster_inputs(9, 16, 8, 2, 4, 4, False)
    x, w, b, p, last, alpha, beta, onto = inputs
    with torch.inference_mode():
        y = lifted_cluster(x, (w, b), (p, last), (alpha, beta), *fixed)[0]
        sum_ = lifted_cluster(x, (w, b), (p, last), (alpha, beta), *fixed, onto)[0]
    torch.testing.assert_close(y + onto, sum_, rtol=0, atol=1e-5)


@here
def test_what_is_not_a_number_stays_in_its_region():
    inputs, fixed = cluster_inputs(9, 16, 8, 2, 4, 4, False)
    x, w, b, p, last, alpha, beta, onto = inputs
    spoiled = x.clone()
    spoiled[3, 5, 2] = torch.nan
    y = lifted_cluster(x, (w, b), (p, last), (alpha, beta), *fixed, onto)[0]
    z = lifted_cluster(spoiled, (w, b), (p, last), (alpha, beta), *fixed, onto)[0]
    keep = torch.arange(9) != 3
    torch.testing.assert_close(z[keep], y[keep], rtol=0, atol=1e-6)
    assert z[3].isnan().all()


@here
def test_points_of_length_zero():
    inputs, fixed = cluster_inputs(9, 16, 8, 2, 4, 4, False)
    inputs[0] = torch.zeros_like(inputs[0])
    inputs[2] = torch.zeros_like(inputs[2])  # every f and every centre is 0
    for a, b in zip(
        run_cluster(lifted_cluster, inputs, fixed, torch.float32)[2],
        run_cluster(lifted._lifted, inputs, fixed, torch.float64)[2],
        strict=True,
    ):
        close(a, b, least=1.0)


@here
@pytest.mark.parametrize("alone", [False, True])
def test_second_derivatives(alone):
    inputs, fixed = cluster_inputs(9, 16, 8, 2, 4, 4, True)

    def twice(function, dtype):
        x, w, b, p, last, alpha, beta, onto = (each.to(dtype).requires_grad_() for each in inputs)
        pool, _, repeats, heads = fixed
        under = None if alone else onto
        y = function(
            x, (w, b), (p, last), (alpha, beta), pool.to(dtype), None, repeats, heads, under
        )[0]
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [w, p, alpha])

    for a, b in zip(
        twice(lifted_cluster, torch.float32), twice(lifted._lifted, torch.float64), strict=True
    ):
        close(a, b, 1e-4)


# Gathering ---------------------------------------------------------------------------------------


@here
@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["both", "features", "places"]), st.integers(1, 50), st.integers(0, 50),
    st.integers(1, 9), st.integers(1, 40), st.integers(1, 17), st.integers(0, 9),
)  # fmt: skip
def test_gathering_agrees_with_float64(what, points, anchors, k, channels, inner, seed):
    x, relative, weight, slope = draw(
        (points, channels), (anchors, k, inner), (channels, inner), (anchors, channels), seed=seed
    )
    index = torch.randint(points, (anchors, k), generator=torch.Generator().manual_seed(seed))

    def gather(*inputs):
        x = inputs[0] if what != "places" else None
        relative, weight = inputs[-2:] if what != "features" else (None, None)
        return _GatherMax.apply(x, relative, weight, index)

    inputs = {"both": [x, relative, weight], "features": [x], "places": [relative, weight]}[what]
    found = gradients(gather, inputs, slope, torch.float32)
    truth = gradients(gather, inputs, slope, torch.float64)
    for a, b in zip(found, truth, strict=True):
        close(a, b, least=1.0)


@here
def test_there_is_no_such_point():
    for wrong in (-1, 5):
        with pytest.raises(IndexError, match="of 5"):
            fused.gather_max(torch.ones(5, 2), None, None, torch.tensor([[0, wrong]]))


# Who is asked ------------------------------------------------------------------------------------


@here
@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_only_plain_tensors_are_taken():
    x = torch.randn(4, 6)
    assert fused.serves(x, torch.nn.Parameter(x))
    for other in (x.double(), x.half(), x.t(), x[:0], x.to("meta")):
        assert not fused.serves(x, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not fused.serves(x)
    with FlopCounterMode(display=False):
        assert not fused.serves(x)
    seen = []
    torch.func.vmap(lambda x: seen.append(fused.serves(x)) or x)(x)
    torch.jit.trace(lambda x: seen.append(fused.serves(x)) or x + 1, x, check_trace=False)
    with torch.autograd.forward_ad.dual_level():
        seen.append(fused.serves(x))
    assert seen == [False, False, False]


@here
def test_counters_of_operations_see_all_of_them(monkeypatch):
    model, images = create_model("coc_tiny", num_classes=3).eval(), torch.randn(1, 3, 64, 64)

    def count():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images)
        return counter.get_total_flops()

    found = count()
    monkeypatch.setattr(fused, "serves", lambda *_: False)
    assert found == count() > 0


@pytest.mark.parametrize("name", ["coc_micro", "coc_tiny"])
def test_networks_agree_without_numba(name, monkeypatch):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    for value in model.parameters():
        value.data += torch.randn_like(value) / 20
    images = torch.randn(2, 3, 64, 64)

    def answers():
        model.zero_grad()
        y = model(images)
        y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for p in model.parameters())]

    model.double()
    images = images.double()
    truth = answers()
    model.float()
    images = images.float()
    found = answers()
    monkeypatch.setattr(fused, "serves", lambda *_: False)
    plain = answers()
    for a, b, c in zip(found, plain, truth, strict=True):
        scale = c.abs().max().clamp_min(1e-3)
        assert (a - c).abs().max() <= 2 * (b - c).abs().max() + 1e-4 * scale


def test_without_numba_torch_serves(absent):
    assert not fused.serves(torch.ones(2, 2))
    inputs = mlp_inputs(5, 3, 4, 3)
    close(_LeanMLP.apply(*inputs), _LeanMLP.apply(*(each.double() for each in inputs)))
    reducer = PointReducer(3, 4, k=2, mode="max")
    assert reducer(torch.randn(8, 3), torch.randn(8, 3))[0].shape == (4, 4)


@here
def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    from pointcluster.nn import fused_loops

    kept = []

    def cfunc(signature, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        kept.append(options)
        return lambda function: type("Compiled", (), {"address": 42})

    monkeypatch.setattr(fused_loops, "cfunc", cfunc)
    assert fused_loops.Kernel(len).address == 42 and len(kept) == 1


# Torch's own libraries ---------------------------------------------------------------------------


def test_another_function_is_not_taken_for_a_product():
    calls = []

    def silent(*arguments):
        calls.append(arguments)

    assert not fused.multiplies(silent)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["_len_torch_dispatch_stack", "_functorch"])
def test_a_torch_without_a_private_name_is_served_by_its_operations(monkeypatch, name):
    monkeypatch.delattr(torch._C, name)
    fused._torch.cache_clear()
    try:
        assert fused._torch() is None
        assert not fused.serves(torch.ones(2, 2))
    finally:
        monkeypatch.undo()
        fused._torch.cache_clear()
