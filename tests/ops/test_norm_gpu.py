"""Triton's normalisation of clouds gives the answer of the reference."""

from __future__ import annotations

import pytest
import torch

from pointcluster.ops import cloud_norm
from pointcluster.ops.norm import gpu
from tests.ops.conftest import (
    card,
    close,
    draw,
    gradients,
    second,
    test_by_the_interpreter,  # noqa: F401 - is run here
)

pytestmark = pytest.mark.usefixtures("kernels")


def case(sizes, channels, shift=0.0):
    x, weight, bias = draw((sum(sizes), channels), (channels,), (channels,))
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(card)
    size = sizes[0] if len(set(sizes)) == 1 else None
    clouds = (None if size else batch, len(sizes), size)

    def function(x, weight, bias):
        return cloud_norm(x, weight, bias, *clouds)

    return [each.to(card) for each in (x + shift, weight, bias)], function


@pytest.mark.parametrize(
    ("sizes", "channels"),
    [([7] * 3, 6), ([9, 1, 4], 5), ([40], 8), ([3, 0, 5, 0], 4), ([3] * 2, 300)],
    ids=["equal", "ragged", "one", "empty", "wide"],
)
@pytest.mark.parametrize("numbers", [16, 4096])
def test_agrees_with_the_reference(monkeypatch, sizes, channels, numbers):
    monkeypatch.setattr(gpu, "NUMBERS", max(numbers, 1024 if channels == 300 else 0))
    inputs, function = case(sizes, channels)
    slope = draw(inputs[0].shape, seed=7)[0].to(card)
    truth = gradients(function, inputs, slope, torch.float64, "reference")
    found = gradients(function, inputs, slope, torch.float32, "auto")
    for a, b in zip(found, truth, strict=True):
        assert a.dtype == torch.float32
        close(a, b, least=1.0)


def test_features_far_from_zero_lose_no_digits(monkeypatch):
    monkeypatch.setattr(gpu, "NUMBERS", 32)
    inputs, function = case([20, 30], 5, shift=1000.0)
    truth = function(*(each.double() for each in inputs))
    close(function(*inputs), truth, 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_half_the_width_and_weights_of_the_whole(dtype):
    (x, weight, bias), function = case([9, 4], 5)
    x = x.to(dtype)
    given = [each.requires_grad_() for each in (x, weight, bias)]
    y = function(*given)
    true = [each.detach().double().requires_grad_() for each in given]
    assert y.dtype == dtype
    truth = function(*true)
    close(y, truth, 1e-2)
    slope = draw(x.shape, seed=7)[0].to(card)
    grads = torch.autograd.grad(y, given, slope.to(dtype))
    for a, b, like in zip(
        grads, torch.autograd.grad(truth, true, slope.double()), given, strict=True
    ):
        assert a.dtype == like.dtype
        close(a, b, 2e-2, 1.0)


def test_second_derivatives():
    inputs, function = case([9, 4], 5)
    truth = second(function, inputs, torch.float64, "reference")
    for a, b in zip(second(function, inputs, torch.float32, "auto"), truth, strict=True):
        close(a, b, 1e-4, 1.0)


@pytest.mark.parametrize("size", [None, 4])
def test_torchs_own_checks_of_the_op(size):
    given = [each.to(card).requires_grad_() for each in draw((8, 3), (3,), (3,))]
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1], device=card)
    torch.library.opcheck(
        torch.ops.pointcluster.cloud_norm, (*given, batch, 2, size, 1e-5),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip
