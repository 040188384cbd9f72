from __future__ import annotations

import pytest

from pointcluster.training import spread, summarise


def test_mean_and_sample_deviation():
    results = [{"test_accuracy": a, "test_mean_class_accuracy": 0.5} for a in (0.7, 0.8, 0.9)]
    summary = summarise(results)
    assert summary["test_accuracy"] == pytest.approx({"mean": 0.8, "std": 0.1})
    assert summary["test_mean_class_accuracy"] == {"mean": 0.5, "std": 0.0}


def test_one_seed_has_no_spread():
    result = {"test_accuracy": 0.7, "test_mean_class_accuracy": 0.5}
    assert summarise([result])["test_accuracy"] == {"mean": 0.7, "std": None}


def test_in_percent():
    assert spread({"mean": 0.8125, "std": 0.0214}) == "81.2% ± 2.1%"
    assert spread({"mean": 0.8125, "std": None}) == "81.2%"
