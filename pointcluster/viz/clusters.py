"""From a network's clusters to pictures: of its stages, of clouds of many classes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.camera import FRONT, reach
from pointcluster.viz.colours import cluster_colours
from pointcluster.viz.paint import paint_cloud
from pointcluster.viz.picture import new_figure, save_figure


def stage_clusters(
    model: Any, data: Tensor | Data, *, every_block: bool = False
) -> dict[str, PointClusters]:
    """The clusters of the last block of every stage, by titles such as ``"stage 1, block 3"``.

    Args:
        model: A network of :mod:`pointcluster.models`.
        data: Pictures or clouds, as it takes them.
        every_block: Of all blocks, not the last ones alone.

    Raises:
        TypeError, ValueError: The data do not fit the network.
    """
    clusters = {}
    for stage, count in enumerate(model.num_blocks):
        for block in range(count) if every_block else [count - 1]:
            clusters[f"stage {stage}, block {block}"] = model.clusters(data, stage, block)
    return clusters


@torch.inference_mode()
def model_clusters(
    path: str | os.PathLike[str],
    model: Any,
    dataset: Sequence[Data],
    *,
    classes: Sequence[str],
    heading: str = "",
    count: int = 12,
    stage: int = -1,
    block: int = -1,
    head: int = 0,
) -> Path:
    """Draw a few clouds, of as many classes as there are, coloured by a network's clusters.

    Args:
        path: The PNG to write.
        model: A network of :mod:`pointcluster.models`, in evaluation mode.
        dataset: Clouds with ``pos`` and ``y``, transformed as the network wants them.
        classes: Names of the classes.
        heading: What stands above all.
        count: How many clouds.
        stage: Whose clusters, as are ``block`` and ``head``; negative ones count from the end.
        block: Which block of the stage.
        head: Which head of the block.
    """
    seen: dict[int, int] = {}
    order = []  # (how many of the class came before, class, number): one of each class first
    for i, item in enumerate(dataset):
        label = int(item.y)
        seen[label] = seen.get(label, -1) + 1
        order.append((seen[label], label, i))
    chosen = sorted(order)[:count]
    device = next(model.parameters()).device
    batch = Batch.from_data_list([dataset[i] for _, _, i in chosen]).to(device)
    predicted = model(batch).argmax(dim=-1).tolist()
    index = model.clusters(batch, stage=stage, block=block).index[:, head]
    names = [name.replace("_", " ") for name in classes]
    titles = [
        names[label] if label == p else f"{names[label]}, taken for {names[p]}"
        for (_, label, _), p in zip(chosen, predicted, strict=True)
    ]
    sizes = batch.batch.bincount().tolist()
    clouds, clusters = (
        [part.numpy() for part in values.cpu().split(sizes)] for values in (batch.pos, index)
    )
    return cluster_grid(path, clouds, clusters, titles=titles, heading=heading)


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
        clouds: Positions, ``[P, 3]`` each, the second axis up.
        clusters: The cluster of every point, ``[P]`` each.
        titles: What stands below each cloud.
        heading: What stands above all.
        columns: Clouds a row.

    Raises:
        ValueError: There are no clouds, or lengths differ.
    """
    if not len(clouds) or not len(clouds) == len(clusters) == len(titles):
        raise ValueError(
            f"{len(clouds)} clouds, {len(clusters)} clusters and {len(titles)} titles, "
            "expected the same number of each, at least one"
        )
    for pos, cluster in zip(clouds, clusters, strict=True):
        if len(pos) != len(cluster):
            raise ValueError(f"a cloud has {len(pos)} points and {len(cluster)} cluster numbers")
    rows = math.ceil(len(clouds) / columns)
    width, height = 2.4 * columns, 2.65 * rows + 0.45
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    figure.subplots_adjust(
        left=0, right=1, bottom=0.01, top=1 - 0.45 / height, wspace=0, hspace=0.02
    )
    figure.suptitle(heading, y=1 - 0.12 / height, va="top", fontsize=11)
    for axes in grid:
        axes.set_axis_off()
    below = {"ha": "center", "va": "bottom", "fontsize": 8.5}
    for axes, cloud, cluster, title in zip(grid, clouds, clusters, titles, strict=False):
        pos = np.asarray(cloud)
        screen, _ = paint_cloud(axes, pos, cluster_colours(pos, np.asarray(cluster)), FRONT)
        low, high = reach(screen, slimmest=1.0)
        low[1] -= 0.09 * (high[1] - low[1])  # for the title
        axes.set(aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.text(0.5, 0.01, title, transform=axes.transAxes, **below)
    return save_figure(figure, path)
