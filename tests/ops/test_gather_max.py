"""Every backend of the gathered maximum gives the answer of its reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcluster.ops import gather_max, use_backend
from tests.ops.conftest import close, draw, gradients, here, second


def loop(x, relative, weight, index):
    """Anchor by anchor."""
    rows = []
    for m, near in enumerate(index.tolist()):
        value = 0 if x is None else torch.stack([x[n] for n in near])
        if relative is not None:
            value = value + relative[m] @ weight.t()
        rows.append(value.amax(dim=0))
    return torch.stack(rows)


def case(what, points, anchors, k, channels, inner, seed=0):
    x, relative, weight = draw(
        (points, channels), (anchors, k, inner), (channels, inner), seed=seed
    )
    index = torch.randint(points, (anchors, k), generator=torch.Generator().manual_seed(seed))
    inputs = {"both": [x, relative, weight], "features": [x], "places": [relative, weight]}[what]

    def by(gather):
        def function(*inputs):
            x = inputs[0] if what != "places" else None
            relative, weight = inputs[-2:] if what != "features" else (None, None)
            return gather(x, relative, weight, index)

        return function

    return inputs, by


@settings(deadline=None, max_examples=40)
@given(
    what=st.sampled_from(["both", "features", "places"]),
    points=st.integers(1, 50),
    anchors=st.integers(1, 50),
    k=st.integers(1, 9),
    channels=st.integers(1, 40),
    inner=st.integers(1, 17),
    seed=st.integers(0, 9),
)
def test_agrees_with_a_loop(what, points, anchors, k, channels, inner, seed):
    inputs, by = case(what, points, anchors, k, channels, inner, seed)
    (slope,) = draw((anchors, channels), seed=seed)
    # amax shares a gradient among equals, which only points that are gathered twice are: the same
    truth = gradients(by(loop), inputs, slope, torch.float64, "reference")
    for backend, dtype in (("auto", torch.float32), ("torch", torch.float64)):
        found = gradients(by(gather_max), inputs, slope, dtype, backend)
        close(found[0], truth[0], least=1.0)
        if what == "features":
            close(found[1], truth[1], least=1.0)
    reference = gradients(by(gather_max), inputs, slope, torch.float64, "reference")
    for a, b in zip(
        gradients(by(gather_max), inputs, slope, torch.float32, "auto"), reference, strict=True
    ):
        close(a, b, least=1.0)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
@pytest.mark.parametrize("what", ["both", "places"])
def test_second_derivatives(what, backend):
    inputs, by = case(what, 30, 40, 5, 8, 3)
    truth = second(by(gather_max), inputs, torch.float64, "reference")
    for a, b in zip(second(by(gather_max), inputs, torch.float32, backend), truth, strict=True):
        close(a, b, 1e-4)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=here)])
@pytest.mark.parametrize("wrong", [-6, 5])
def test_there_is_no_such_point(wrong, backend):
    with use_backend(backend), pytest.raises((IndexError, RuntimeError), match="of|beyond|range"):
        gather_max(torch.ones(5, 2), None, None, torch.tensor([[0, wrong]]))


@here
@pytest.mark.parametrize("what", ["both", "features", "places"])
def test_torchs_own_checks_of_the_op(what):
    inputs, by = case(what, 30, 40, 5, 8, 3)
    given = by(lambda *arguments: arguments)(*(each.requires_grad_() for each in inputs))
    torch.library.opcheck(torch.ops.pointcluster.gather_max, given, test_utils=(
        "test_schema", "test_faketensor", "test_autograd_registration",
    ))  # fmt: skip
