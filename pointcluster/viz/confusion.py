"""Which classes are taken for which."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.viz.picture import new_figure, save_figure


def confusion_picture(
    path: str | os.PathLike[str],
    matrix: np.ndarray,
    classes: Sequence[str],
    *,
    heading: str = "",
) -> Path:
    """Draw a confusion matrix: cells shaded by their share of the row, with counts in them.

    Args:
        path: The PNG to write.
        matrix: Counts ``[true class, predicted class]``.
        classes: Names of the classes.
        heading: What stands above it.

    Raises:
        ValueError: The matrix is not as large as the list of classes.
    """
    counts = np.asarray(matrix)
    number = len(classes)
    if counts.shape != (number, number):
        raise ValueError(f"the matrix is {list(counts.shape)}, expected {[number, number]}")
    total = counts.sum(axis=1)
    share = counts / np.maximum(total, 1)[:, None]
    cell, small = (0.42, 8.0) if number <= 20 else (0.27, 5.5)
    side = cell * number
    left, below, above = 1.6, 1.3, 0.55
    width, height = left + side + 1.0, below + side + above
    figure = new_figure(width, height)
    box = (left / width, below / height, side / width, side / height)
    panel = figure.add_axes(box, aspect="equal")
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    plain = [name.replace("_", " ") for name in classes]
    counted = [f"{name} ({count})" for name, count in zip(plain, total, strict=True)]
    panel.set_xticks(range(number), plain, rotation=90, fontsize=small + 1)
    panel.set_yticks(range(number), counted, fontsize=small + 1)
    panel.set(xlabel="predicted", ylabel="true (test clouds)")
    between = np.arange(number + 1) - 0.5
    panel.set_xticks(between, minor=True)
    panel.set_yticks(between, minor=True)
    panel.tick_params(which="both", length=0)
    panel.grid(which="minor", color="0.88", linewidth=0.6)
    for row, column in np.argwhere(counts):
        colour = "white" if share[row, column] > 0.55 else "black"
        look: Any = {"ha": "center", "va": "center", "fontsize": small, "color": colour}
        panel.text(column, row, str(counts[row, column]), **look)
    beside = (left + side + 0.15) / width, below / height, 0.14 / width, side / height
    bar = figure.add_axes(beside)
    figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1], format=lambda value, _: f"{value:.0%}")
    bar.tick_params(labelsize=8)
    bar.set_title("of row", fontsize=8)
    figure.suptitle(heading, y=1 - 0.1 / height, va="top", fontsize=11)
    return save_figure(figure, path)
