"""Which classes are taken for which."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

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
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    cell = 0.42 if number <= 20 else 0.27
    side = cell * number
    left, below, above = 1.6, 1.3, 0.55
    width, height = left + side + 1.0, below + side + above
    figure = new_figure(width, height)
    panel = figure.add_axes(
        (left / width, below / height, side / width, side / height), aspect="equal"
    )
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    small = 8 if number <= 20 else 5.5
    plain = [name.replace("_", " ") for name in classes]
    names = [f"{name} ({n})" for name, n in zip(plain, total[:, 0], strict=True)]
    panel.set_xticks(range(number), plain, rotation=90, fontsize=small + 1)
    panel.set_yticks(range(number), names, fontsize=small + 1)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true (test clouds)")
    panel.tick_params(length=0)
    panel.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    panel.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    panel.grid(which="minor", color="0.88", linewidth=0.6)
    panel.tick_params(which="minor", length=0)
    for row, column in np.argwhere(counts):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = str(counts[row, column])
        panel.text(column, row, text, ha="center", va="center", fontsize=small, color=colour)
    bar = figure.add_axes(
        ((left + side + 0.15) / width, below / height, 0.14 / width, side / height)
    )
    figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1], format=lambda value, _: f"{value:.0%}")
    bar.tick_params(labelsize=8)
    bar.set_title("of row", fontsize=8)
    figure.suptitle(heading, y=1 - 0.1 / height, va="top", fontsize=11)
    return save_figure(figure, path)
