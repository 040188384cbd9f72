"""The clusters of several blocks at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters


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
    found = {}
    for stage, count in enumerate(model.num_blocks):
        for block in range(count) if every_block else [count - 1]:
            found[f"stage {stage}, block {block}"] = model.clusters(data, stage, block)
    return found
