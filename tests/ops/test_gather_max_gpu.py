"""Triton's kernels of the gathered maximum give the answer of the reference."""

from __future__ import annotations

import pytest
import torch

from pointcluster.ops import gather_max
from tests.ops.conftest import (
    card,
    close,
    draw,
    gradients,
    second,
    test_by_the_interpreter,  # noqa: F401 - is run here
)

pytestmark = pytest.mark.usefixtures("kernels")


def case(what, points=30, anchors=20, k=5, channels=8, inner=3, seed=0):
    shapes = (points, channels), (anchors, k, inner), (channels, inner)
    x, relative, weight = (each.to(card) for each in draw(*shapes, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(points, (anchors, k), generator=generator).to(card)
    inputs = {"both": [x, relative, weight], "features": [x], "places": [relative, weight]}[what]

    def function(*inputs):
        x = inputs[0] if what != "places" else None
        relative, weight = inputs[-2:] if what != "features" else (None, None)
        return gather_max(x, relative, weight, index)

    return inputs, function


@pytest.mark.parametrize("what", ["both", "features", "places"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 70, "inner": 17, "k": 9, "anchors": 3},
        {"anchors": 1, "k": 1, "points": 1},
    ],
    ids=["some", "more", "one"],
)
def test_agrees_with_the_reference(what, options):
    inputs, function = case(what, **options)
    slope = draw((options.get("anchors", 20), options.get("channels", 8)), seed=7)[0].to(card)
    truth = gradients(function, inputs, slope, torch.float64, "reference")
    found = gradients(function, inputs, slope, torch.float32, "auto")
    for a, b in zip(found, truth, strict=True):
        assert a.dtype == torch.float32
        close(a, b, least=1.0)
    again = gradients(function, inputs, slope, torch.float32, "auto")
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_half_the_width(dtype):
    inputs, function = case("both")
    inputs = [each.to(dtype).float() for each in inputs]
    slope = draw((20, 8), seed=7)[0].to(card).to(dtype).float()
    truth = gradients(function, inputs, slope, torch.float64, "reference")
    for a, b in zip(gradients(function, inputs, slope, dtype, "auto"), truth, strict=True):
        assert a.dtype == dtype
        close(a, b, 1e-2, 1.0)


def test_second_derivatives():
    inputs, function = case("both")
    truth = second(function, inputs, torch.float64, "reference")
    for a, b in zip(second(function, inputs, torch.float32, "auto"), truth, strict=True):
        close(a, b, 1e-4)


def test_a_point_that_is_not_there_is_no_number():
    index = torch.tensor([[0, 1], [0, 5], [-6, 1]], device=card)
    y = gather_max(torch.ones(5, 2, device=card), None, None, index)
    assert y[0].tolist() == [1, 1] and y[1:].isnan().all()


def test_equals_and_what_is_no_number():
    x = torch.tensor([[1.0, torch.nan, -torch.inf], [1.0, 2.0, -torch.inf]], device=card)
    y, which = torch.ops.pointcluster.gather_max(x, None, None, torch.tensor([[1, 0]], device=card))
    assert y[0, 0] == 1 and y[0, 1].isnan() and y[0, 2] == -torch.inf
    assert which.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("what", ["both", "features", "places"])
def test_torchs_own_checks_of_the_op(what):
    inputs, _ = case(what)
    inputs = [each.requires_grad_() for each in inputs]
    index = torch.randint(30, (20, 5), device=card)
    given = {"both": [*inputs], "features": [inputs[0], None, None], "places": [None, *inputs]}[
        what
    ]
    torch.library.opcheck(
        torch.ops.pointcluster.gather_max, (*given, index),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip
