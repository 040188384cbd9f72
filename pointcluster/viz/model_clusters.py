"""The clusters that a network works with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Batch, Data

from pointcluster.viz.cluster_grid import cluster_grid


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
    clouds = [batch.batch == i for i in range(len(chosen))]
    return cluster_grid(
        path,
        [batch.pos[cloud].cpu().numpy() for cloud in clouds],
        [index[cloud].cpu().numpy() for cloud in clouds],
        titles=titles,
        heading=heading,
    )
