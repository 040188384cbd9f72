from __future__ import annotations

import sys
import time

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


def test_a_row_that_fails_or_takes_too_long_says_why_and_the_others_go_on(script, run, monkeypatch):
    gpu = script("gpu")

    def rows(bench):
        """Rows."""
        yield ["what", "seconds"]
        yield bench.row("good", 1, lambda: [1.0])
        yield bench.row("bad", 1, lambda: 1 / 0)
        yield bench.row("missing", 1, lambda: sys.exit("needs einops"))
        yield bench.row("slow", 1, lambda: time.sleep(9) or [1.0], limit=0.05)
        page = (bench.args.out / "gpu.md").read_text()  # written as they come
        assert "| good | 1.00 |" in page and "late" not in page
        bench.until = 0
        yield bench.row("late", 1, lambda: [1.0])

    def nothing(bench):
        """Nothing."""
        yield ["head"]

    monkeypatch.setattr(gpu, "agreement", rows)
    for name in ("geometry", "layers", "images", "clouds", "launches", "trainings"):
        monkeypatch.setattr(gpu, name, nothing)
    page, _ = run("gpu", "--device", "cpu", "--small", "--no-train")
    for row in (
        "| good | 1.00 |", "| bad: ZeroDivisionError: division by zero | – |",
        "| missing: SystemExit: needs einops | – |", "| slow: TimeoutError: took longer than 0 s |",
        "| late: left out, no time | – |",
    ):  # fmt: skip
        assert row in page
    assert "This part failed" not in page
