from __future__ import annotations

import pytest


@pytest.mark.slow
def test_runs_without_a_gpu(run):
    page, printed = run("gpu", "--device", "cpu", "--small", "--strict", "--no-train")
    assert page in printed and "failed" not in page
    for row in (
        "| layer, ragged |", "| searches, 3 axes | the same |", "| coc_tiny | 2 |",
        "| point_coc_small | 2 of 128 |", "| nearest 16: 32 x 128, 16 |", "| one of 1,000 |",
    ):  # fmt: skip
        assert row in page


def test_a_part_that_fails_says_why_and_the_others_go_on(script, run, monkeypatch):
    gpu = script("gpu")

    def broken(bench):
        """A part that fails."""
        yield ["head"]
        raise RuntimeError("out of memory")

    for name in ("agreement", "layers", "images", "clouds", "launches", "trainings"):
        monkeypatch.setattr(gpu, name, broken)
    page, _ = run("gpu", "--device", "cpu", "--small", "--no-train")
    assert page.count("This part failed: RuntimeError: out of memory") == 6
    assert "| farthest points: 32 x 128, 16 |" in page
