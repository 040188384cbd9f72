from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

MIB = 1 << 20


def test_medians_take_turns_and_leave_the_first_round_out(script):
    calls = []
    found = script("measure").medians(
        {name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2, budget=60
    )
    assert calls == ["a", "b"] * 3
    assert set(found) == {"a", "b"} and all(value >= 0 for value in found.values())


def test_a_call_over_the_budget_is_not_repeated(script):
    calls = []
    found = script("measure").medians({"slow": lambda: calls.append(1)}, repeats=5, budget=0)
    assert len(calls) == 1 and found["slow"] > 0


def test_the_peak_is_that_of_the_product(script, monkeypatch):
    measure = script("measure")
    monkeypatch.setattr(measure, "_seconds", lambda call: 1e-3)
    seconds, peak = measure.medians_and_peak({"a": list}, repeats=2, budget=1, size=100)
    assert seconds == {"a": 1e-3} and peak == pytest.approx(2e6 / 1e-3 / 1e9)


def hold(mib: int) -> np.ndarray:
    return np.ones(mib * MIB, np.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux alone")
def test_peak_memory_is_that_of_each_call(script):
    peak_memory = script("measure").peak_memory
    for mib in (64, 96, 48):
        assert abs(peak_memory(lambda mib=mib: hold(mib)) - mib * MIB) < 8 * MIB


def test_flops_of_products_in_place_count(script):
    flops = script("measure").flops
    a, b, total = torch.rand(4, 5), torch.rand(5, 3), torch.rand(4, 3)
    assert flops(lambda: a @ b) == flops(lambda: total.addmm_(a, b)) == 2 * 4 * 5 * 3
    batch = torch.rand(2, 4, 3)
    assert flops(lambda: batch.baddbmm_(a.expand(2, 4, 5), b.expand(2, 5, 3))) == 4 * 4 * 5 * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.012345, "0.0123"), (1.5, "1.50"), (99.96, "100"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_that_matter(script, value, text):
    assert script("measure").number(value) == text


def test_a_table_is_markdown(script):
    text = script("measure").table(["what", "s"], [["a", "1"]])
    assert text.splitlines() == ["| what | s |", "| --- | ---: |", "| a | 1 |"]
