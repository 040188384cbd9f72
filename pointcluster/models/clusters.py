"""From the clusters of a block to those of the points that went into the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pointcluster.geometry import AnchorGeometry, StageGeometry, knn
from pointcluster.models.clouds import cloud_of
from pointcluster.models.results import PointClusters, place
from pointcluster.nn.context_cluster import Clusters


def chosen_block(
    heads: Sequence[Sequence[int]], stage: int, block: int, head: int | None
) -> tuple[int, int, int | None]:
    """Stage, block and head, counted from the front.

    Args:
        heads: Heads of every block of every stage.
        stage: Which stage; negative ones count from the end, as with the others.
        block: Which of its blocks.
        head: Which of its heads; `None`: all.

    Raises:
        IndexError: There is none of that number.
        TypeError: One of them is no integer.
    """
    stage = place("stage", stage, len(heads))
    block = place(f"block of stage {stage}", block, len(heads[stage]))
    if head is not None:
        head = place(f"head of stage {stage}, block {block}", head, heads[stage][block])
    return stage, block, head


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a network into evaluation and every part of it back into the mode that it was in."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def nearest_anchor(pos: Tensor, batch: Tensor, anchors: AnchorGeometry) -> Tensor:
    r"""The anchor of its cloud that each point is nearest to.

    Shapes:
        - **pos:** $(N, D)$, **batch:** $(N)$
        - **output:** $(N)$
    """
    here = anchors.pos.to(pos.dtype)
    return knn(here, pos, 1, anchors.batch, batch, batch_size=anchors.batch_size)[:, 0]


def anchor_of_input(data: Data, stages: Sequence[AnchorGeometry]) -> Tensor:
    r"""The anchor that each point of the input goes with after some stages.

    It is the anchor nearest to the point, then the next stage's nearest to that one, and so on;
    without stages it is the point itself.

    Shapes:
        - **output:** $(N)$
    """
    pos, batch = data.pos, cloud_of(data)
    parent = torch.arange(len(pos), device=pos.device)
    for anchors in stages:
        parent = nearest_anchor(pos, batch, anchors)[parent]
        pos, batch = anchors.pos.to(pos.dtype), anchors.batch
    return parent


def block_clusters(
    block: nn.Module, x: Tensor, data: Data, stages: Sequence[StageGeometry]
) -> PointClusters:
    r"""The clusters of a block for every point of the input.

    Args:
        block: A block of the last of the stages.
        x: What goes into it.
        data: The input.
        stages: The geometry of the stages up to its own.

    Shapes:
        - **x:** $(N_s, C)$
    """
    anchors, geometry = stages[-1]
    _, clusters = block(x, geometry, return_clusters=True)
    parent = anchor_of_input(data, [stage.anchors for stage in stages])
    return seen_from_input(clusters, parent, cloud_of(data), anchors.pos, anchors.batch)


def seen_from_input(
    clusters: Clusters, parent: Tensor, batch: Tensor, pos: Tensor, cloud: Tensor
) -> PointClusters:
    r"""A block's clusters for every point of the input.

    Args:
        clusters: Those of the points that the block works on.
        parent: Which of those each point of the input goes with.
        batch: The cloud of each point of the input.
        pos: Where the block's points are.
        cloud: Their clouds.

    Shapes:
        - **parent**, **batch:** $(N)$, **pos:** $(n, D)$, **cloud:** $(n)$
    """
    return PointClusters(
        index=clusters.index[parent],
        similarity=clusters.similarity[parent],
        region=clusters.region[parent],
        batch=batch,
        center_pos=pos[clusters.center],
        center_batch=cloud[clusters.center],
    )
