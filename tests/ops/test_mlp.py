"""Every backend of the MLP gives the answer of its reference."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.ops import launch, mlp, use_backend
from tests.ops.conftest import close, draw, gradients, here, second


def inputs_of(rows, channels, hidden, out, seed=0):
    return draw(
        (rows, channels), (hidden, channels), (hidden,), (out, hidden), (out,), (rows, out),
        seed=seed,
    )  # fmt: skip


def plain(x, w1, b1, w2, b2, residual):
    return residual + F.gelu(x @ w1.t() + b1) @ w2.t() + b2


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(0, 300),
    channels=st.integers(1, 40),
    hidden=st.integers(1, 70),
    out=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_agrees_with_float64(rows, channels, hidden, out, seed):
    inputs = inputs_of(rows, channels, hidden, out, seed)
    (slope,) = draw((rows, out), seed=seed + 1)
    truth = gradients(plain, inputs, slope, torch.float64, "reference")
    for backend, dtype in (("auto", torch.float32), ("torch", torch.float64)):
        for a, b in zip(gradients(mlp, inputs, slope, dtype, backend), truth, strict=True):
            close(a, b, least=1.0)
    *inputs, residual = inputs
    close(mlp(*inputs), truth[0] - residual.double(), least=1.0)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
def test_second_derivatives(backend):
    inputs = inputs_of(50, 6, 9, 4)
    truth = second(plain, inputs, torch.float64, "reference")
    for a, b in zip(second(mlp, inputs, torch.float32, backend), truth, strict=True):
        close(a, b, 1e-4)


# GELU as the kernel has it ------------------------------------------------------------------------


def gelu(x):
    """GELU as the kernel works it out, one number a row, and its slope."""
    one, zero, x = torch.ones(1, 1), torch.zeros(1), x[:, None].clone().requires_grad_()
    with use_backend("cpu"):
        y = mlp(x, one, zero, one, zero)
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach()[:, 0], slope[:, 0]


@here
def test_gelu_is_as_precise_as_torchs():
    x = torch.cat(
        [torch.linspace(-12, 12, 200_001), *(draw(20_000)[0] * 10.0**e for e in (-30, -3, 0))]
    )
    wide = x.double().requires_grad_()
    truth = F.gelu(wide)
    (slope,) = torch.autograd.grad(truth.sum(), wide)
    narrow = x.clone().requires_grad_()
    (torchs,) = torch.autograd.grad(F.gelu(narrow).sum(), narrow)
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


@here
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_many_threads_as_torch_has_and_the_same_answer(threads, monkeypatch):
    inputs, counts, before = inputs_of(1000, 16, 64, 16), [], torch.get_num_threads()
    real = launch._torch()
    (slope,) = draw((1000, 16), seed=1)

    def team(function, data, count, flags):
        counts.append(count)
        real.team(function, data, count, flags)

    truth = gradients(mlp, inputs, slope, torch.float64, "reference")
    monkeypatch.setattr(launch, "_torch", lambda: real._replace(team=team))
    try:
        torch.set_num_threads(threads)
        found = gradients(mlp, inputs, slope, torch.float32, "cpu")
        again = gradients(mlp, inputs, slope, torch.float32, "cpu")
    finally:
        torch.set_num_threads(before)
    assert counts == [threads] * 4
    for a, b, c in zip(found, again, truth, strict=True):
        assert torch.equal(a, b)
        close(a, c)


@pytest.mark.parametrize("change", [
    {0: torch.zeros(50, 5)}, {1: torch.zeros(18, 6)}, {1: torch.zeros(9, 7)}, {2: torch.zeros(8)},
    {3: torch.zeros(4, 10)}, {4: torch.zeros(3)}, {5: torch.zeros(50, 3)}, {5: torch.zeros(49, 4)},
], ids=str)  # fmt: skip
def test_shapes_that_do_not_fit_are_torchs_error(change):
    inputs = [change.get(i, each) for i, each in enumerate(inputs_of(50, 6, 9, 4))]
    with pytest.raises(RuntimeError):
        mlp(*inputs)


@here
def test_torchs_own_checks_of_the_op():
    inputs = [each.requires_grad_() for each in inputs_of(20, 6, 9, 4)]
    torch.library.opcheck(torch.ops.pointcluster.mlp, inputs, test_utils=(
        "test_schema", "test_faketensor", "test_autograd_registration",
    ))  # fmt: skip
