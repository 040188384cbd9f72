"""Results over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def spread(row: dict[str, float | None]) -> str:
    """Mean and standard deviation of shares, in percent."""
    return f"{row['mean']:.1%}" if row["std"] is None else f"{row['mean']:.1%} ± {row['std']:.1%}"


def summarise(
    results: Sequence[dict[str, Any]],
    keys: Sequence[str] = ("test_accuracy", "test_mean_class_accuracy"),
) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation (``None`` for one seed) of what was measured.

    Args:
        results: One dictionary a run.
        keys: Which of their values.
    """
    summary: dict[str, dict[str, float | None]] = {}
    for key in keys:
        values = [result[key] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else None
        summary[key] = {"mean": statistics.fmean(values), "std": spread}
    return summary
