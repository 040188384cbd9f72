"""Clouds coloured by their clusters."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointcluster.viz.figure import new_figure, save_figure
from pointcluster.viz.palette import cluster_colours


def cluster_grid(
    path: str | os.PathLike[str],
    clouds: Sequence[np.ndarray],
    clusters: Sequence[np.ndarray],
    *,
    titles: Sequence[str],
    heading: str = "",
    columns: int = 4,
) -> Path:
    """Draw clouds side by side, each point in the colour of its cluster.

    Points farther from the eye are paler and smaller.

    Args:
        path: The PNG to write.
        clouds: Positions, ``[P, 3]`` each.
        clusters: The cluster of every point, ``[P]`` each.
        titles: What stands below each cloud.
        heading: What stands above all.
        columns: Clouds a row.

    Shapes and units:
        The second axis points up; every cloud is scaled to its panel.

    Raises:
        ValueError: There are no clouds, or lengths differ.
    """
    if not len(clouds) or not len(clouds) == len(clusters) == len(titles):
        raise ValueError(
            f"{len(clouds)} clouds, {len(clusters)} clusters and {len(titles)} titles, "
            "expected the same number of each, at least one"
        )
    rows = math.ceil(len(clouds) / columns)
    figure = new_figure(2.4 * columns, 2.65 * rows + 0.45)
    grid = figure.subplots(rows, columns, squeeze=False)
    top = 1 - 0.45 / figure.get_figheight()
    figure.subplots_adjust(left=0, right=1, bottom=0.01, top=top, wspace=0, hspace=0.02)
    figure.suptitle(heading, y=1 - 0.12 / figure.get_figheight(), va="top", fontsize=11)
    for panel in grid.flat:
        panel.set_axis_off()
    for panel, pos, cluster, title in zip(
        grid.flat, clouds, clusters, titles, strict=False
    ):  # the last row may have empty panels
        if len(pos) != len(cluster):
            raise ValueError(f"a cloud has {len(pos)} points and {len(cluster)} cluster numbers")
        screen, depth = project(np.asarray(pos))
        # 0 at the back, 1 at the front
        near = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
        colour = cluster_colours(np.asarray(pos), np.asarray(cluster))
        colour = 1 - (1 - colour) * (0.35 + 0.65 * near[:, None])
        size = float(np.clip(9000 / len(pos), 0.5, 20)) * (0.6 + 0.6 * near)
        order = np.argsort(depth, kind="stable")  # the front is drawn last
        panel.scatter(*screen[order].T, c=colour[order], s=size[order], linewidths=0)
        panel.set(aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.3, 1.08))
        panel.text(0, -1.27, title, ha="center", va="bottom", fontsize=8.5)
    return save_figure(figure, path)


def project(pos: np.ndarray, *, turn: float = 35.0, tilt: float = 20.0) -> tuple[np.ndarray, ...]:
    """Where points appear to an eye that looks from the front right and above.

    Args:
        pos: Positions ``[P, 3]``, the second axis up.
        turn: Degrees about the up axis.
        tilt: Degrees from above.

    Shapes and units:
        Returns the place on the screen ``[P, 2]``, in the unit circle, and the nearness ``[P]``.
    """
    pos = pos - (pos.max(axis=0) + pos.min(axis=0)) / 2
    pos = pos / max(float(np.linalg.norm(pos, axis=1).max()), 1e-9)
    x, y, z = pos.T
    a, b = math.radians(turn), math.radians(tilt)
    right = math.cos(a) * x - math.sin(a) * z
    front = math.sin(a) * x + math.cos(a) * z
    up = math.cos(b) * y - math.sin(b) * front
    return np.stack([right, up], axis=1), math.sin(b) * y + math.cos(b) * front
