"""Clouds coloured by their clusters."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointcluster.viz.cloud_panel import paint_cloud
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
        pos = np.asarray(pos)
        paint_cloud(panel, pos, cluster_colours(pos, np.asarray(cluster)))
        panel.set(aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.3, 1.08))
        panel.text(0, -1.27, title, ha="center", va="bottom", fontsize=8.5)
    return save_figure(figure, path)
