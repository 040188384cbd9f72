"""Hierarchical networks of context clusters for 3D point clouds."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import Hierarchy, StagePlan, build_hierarchy
from pointcluster.geometry.check import check_positive, geometry_dtype
from pointcluster.geometry.join import known_hierarchy
from pointcluster.models.clouds import (
    check_clouds,
    check_entries,
    check_equally_many,
)
from pointcluster.models.clusters import (
    anchor_of_input,
    chosen_block,
    cloud_of,
    evaluating,
    seen_from_input,
)
from pointcluster.models.results import Features, PointClusters
from pointcluster.nn import BatchNorm, CloudNorm, ContextClusterBlock, PointReducer


class Size(NamedTuple):
    """What makes one network larger than another; the terms are :class:`PointCoC`'s."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]
    encode: tuple[int, ...]
    k: int
    mlp_ratio: float
    head_hidden: int
    layer_scale: float | None = None
    pre_norm: bool = False


# fmt: off
SIZES = {
    # channels, blocks, heads and share of points kept for each stage, hidden channels of its
    # encoder; points an anchor gathers; hidden channels of an MLP as a multiple; of the head; start
    # of the scales of the blocks' branches (deep networks learn far faster with them); whether what
    # is gathered is normalised before as well
    "point_coc_tiny": Size(
        (48, 96, 192), (1, 1, 1), (2, 4, 4), (0.25, 0.5, 0.5), (16, 0, 0), 16, 2.0, 128),
    "point_coc_small": Size(
        (48, 96, 160, 224), (1, 2, 3, 1), (2, 4, 4, 8), (0.5, 0.5, 0.5, 0.5), (32, 16, 16, 16),
        24, 3.0, 160, 0.1, True),
}
# fmt: on
"""The networks by name."""


class PointCoC(nn.Module):
    r"""A classifier of point clouds: stages of a point reducer and context cluster blocks.

    Each stage keeps a share of the points as anchors, lets them gather their nearest points once
    (features, and the encoded relative positions) and then works on them with context cluster
    blocks in regions of at most 32 points, whose geometry all blocks share. The last stage's points
    are pooled by mean and maximum. Only positions relative to the cloud's mean and to anchors
    enter, so moving a cloud changes nothing.

    The operator is that of "Image as Set of Points", Ma et al., ICLR 2023; encoding space once a
    stage follows "DeLA", Chen et al., 2023, and "PointNeXt", Qian et al., NeurIPS 2022.

    Args:
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the features `x` that come with the positions (normals, colours).
        channels: Channels of the stages.
        depths: Blocks of the stages.
        heads: Heads in the stages' blocks.
        ratios: Anchors of each stage as a share of the points before.
        encode: Hidden channels of the MLP that encodes relative positions; 0 for a linear map.
        reducer: How an anchor gathers, `"max"` or `"concat"` (as :class:`PointReducer` does).
        relative: Whether it sees relative positions.
        k: Points that an anchor gathers.
        mlp_ratio: Hidden channels of the blocks' MLP as a multiple.
        head_hidden: Channels between pooling and classifier.
        num_centers: Centres a region.
        center_k: Points that a centre is the mean of.
        region_size: Most points a region.
        dim: Number of axes of the positions.
        dropout: Share of the head's hidden channels left out in training.
        layer_scale: Start of the scales of the blocks' branches; `None` leaves them out.
        norm: Normalise what the anchors gathered over the batch, channel by channel.
        pre_norm: Normalise the features that they gather so, too, from the second stage on: then
            they weigh as much as relative positions, however deep the stage before.
        drop_path: Probability of leaving out the last block's branches for a cloud in training; it
            rises evenly from 0 at the first.

    Shapes:
        - **data:** `pos` $(N, D)$, `batch` $(N)$, and `x` $(N, F)$ where `in_channels` is F
        - **output:** $(B, \text{classes})$

    Raises:
        ValueError: The lists differ in length.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 0,
        *,
        channels: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        ratios: Sequence[float],
        encode: Sequence[int],
        reducer: str = "max",
        relative: bool = True,
        k: int = 24,
        mlp_ratio: float = 4.0,
        head_hidden: int = 256,
        num_centers: int = 4,
        center_k: int = 8,
        region_size: int = 32,
        dim: int = 3,
        dropout: float = 0.3,
        drop_path: float = 0.1,
        layer_scale: float | None = None,
        norm: bool = True,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes, least=0)
        check_positive("in_channels", in_channels, least=0)
        check_equally_many(
            channels=channels, depths=depths, heads=heads, ratios=ratios, encode=encode
        )
        check_positive("dim", dim)
        check_entries(1, channels=channels, heads=heads)
        check_entries(0, depths=depths, encode=encode)
        self.config: dict[str, Any] = {}  # what create_model() builds it from
        self.num_classes, self.in_channels, self.dim = num_classes, in_channels, dim
        self.num_features = 2 * channels[-1]
        self.plans = [StagePlan(r, k, region_size, num_centers, center_k) for r in ratios]
        last = max(1, sum(depths) - 1)
        drop = [drop_path * i / last for i in range(sum(depths))]
        self.pre_norms: Any = nn.ModuleList()
        self.reducers: Any = nn.ModuleList()
        self.norms: Any = nn.ModuleList()
        self.stages: Any = nn.ModuleList()
        width = dim + in_channels
        for stage, (wide, depth, head) in enumerate(zip(channels, depths, heads, strict=True)):
            self.pre_norms.append(BatchNorm(width) if pre_norm and stage else nn.Identity())
            self.reducers.append(
                PointReducer(
                    width,
                    wide,
                    k=k,
                    num=ratios[stage],
                    dim=dim if relative else 0,
                    mode=reducer,
                    hidden=encode[stage],
                )
            )
            self.norms.append(BatchNorm(wide) if norm else nn.Identity())
            self.stages.append(
                nn.ModuleList(
                    ContextClusterBlock(
                        wide,
                        heads=head,
                        head_channels=wide // head,
                        num_centers=num_centers,
                        k=center_k,
                        region_size=region_size,
                        mlp_ratio=mlp_ratio,
                        drop_path=drop.pop(0),
                        layer_scale=layer_scale,
                    )
                    for _ in range(depth)
                )
            )
            width = wide
        reductions = [round(1 / r) for r in itertools.accumulate(ratios, operator.mul)]
        self.feature_info = [
            {"num_chs": wide, "reduction": reduction, "module": f"stages.{s}"}
            for s, (wide, reduction) in enumerate(zip(channels, reductions, strict=True))
        ]
        self.norm = CloudNorm(width)
        self.head_hidden_size = head_hidden
        self.neck: Any = nn.Sequential(
            nn.Linear(self.num_features, head_hidden), nn.GELU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(head_hidden, num_classes) if num_classes else nn.Identity()

    def forward(self, data: Data, hierarchy: Hierarchy | None = None) -> Tensor:
        """Class scores of each cloud; `hierarchy` reuses geometry worked out before."""
        return self.forward_head(self.forward_features(data, hierarchy))

    def hierarchy(self, data: Data) -> Hierarchy:
        """The geometry of all stages for these clouds.

        It is what :class:`~pointcluster.transforms.PrecomputeHierarchy` worked out, where it did.

        Raises:
            TypeError, ValueError: The data carry one that does not fit, or the clouds are
                malformed.
        """
        known = known_hierarchy(data, self.plans)
        if known is not None:
            return known
        return build_hierarchy(data.pos, self.plans, data.batch, batch_size=_batch_size(data))

    def forward_features(self, data: Data, hierarchy: Hierarchy | None = None) -> Features:
        """The points of the last stage with their features."""
        hierarchy = self._hierarchy(data, hierarchy)
        *_, x = self._run(data, hierarchy, len(self.stages) - 1)
        anchors = hierarchy.stages[-1].anchors
        x = self.norm(x, anchors.batch, hierarchy.batch_size, anchors.cloud_size)
        return Features(x, anchors.pos, anchors.batch, hierarchy.batch_size)

    def forward_head(self, features: Features, pre_logits: bool = False) -> Tensor:
        """Pool each cloud's points and classify; `pre_logits` stops before the classifier."""
        x, _, batch, size = features
        pooled = [scatter(x, batch, dim_size=size, reduce=reduce) for reduce in ("mean", "max")]
        x = self.neck(torch.cat(pooled, dim=1))
        return x if pre_logits else self.head(x)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0 leaves it out."""
        check_positive("num_classes", num_classes, least=0)
        self.num_classes = self.config["num_classes"] = num_classes
        like = next(self.parameters())
        self.head = (
            nn.Linear(self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )

    @property
    def num_blocks(self) -> list[int]:
        """Blocks of each stage."""
        return [len(blocks) for blocks in self.stages]

    @torch.no_grad()
    def clusters(
        self,
        data: Data,
        stage: int = -1,
        block: int = -1,
        head: int | None = None,
        *,
        hierarchy: Hierarchy | None = None,
    ) -> PointClusters:
        """The assignment in one block, for every point of the input.

        A point belongs to the cluster of its nearest anchor, stage by stage.

        Args:
            data: The clouds.
            stage: Which stage; negative ones count from the end.
            block: Which of its blocks; negative ones count from the end.
            head: Which of its heads; negative ones count from the end. `None`: all.
            hierarchy: Geometry worked out before.

        Raises:
            IndexError: There is no such stage, block or head.
            TypeError: One of them is no integer.
        """
        heads = [[block.cluster.heads for block in blocks] for blocks in self.stages]
        stage, block, head = chosen_block(heads, stage, block, head)
        hierarchy = self._hierarchy(data, hierarchy)
        with evaluating(self):
            *_, x = self._run(data, hierarchy, stage, block)
            anchors, geometry = hierarchy.stages[stage]
            _, found = self.stages[stage][block](x, geometry, return_clusters=True)
        parent = anchor_of_input(data, [each.anchors for each in hierarchy.stages[: stage + 1]])
        seen = seen_from_input(found, parent, cloud_of(data), anchors.pos, anchors.batch)
        return seen.of_head(head)

    def _hierarchy(self, data: Data, hierarchy: Hierarchy | None) -> Hierarchy:
        """The geometry, checked against the data where it is given."""
        self._check(data)
        if hierarchy is None:
            return self.hierarchy(data)
        known_hierarchy(data, self.plans, hierarchy)
        return hierarchy

    def _run(
        self, data: Data, hierarchy: Hierarchy, last: int, depth: int | None = None
    ) -> Iterator[Tensor]:
        """The features after each stage; of the last stage only after so many blocks."""
        x = self._input(data, hierarchy.batch_size)
        for s, (anchors, geometry) in enumerate(hierarchy.stages[: last + 1]):
            x = self.norms[s](self.reducers[s](self.pre_norms[s](x), anchors)[0])
            for b, block in enumerate(self.stages[s]):
                if s == last and b == depth:
                    break
                x = block(x, geometry)
            yield x

    def _check(self, data: Data) -> None:
        """Turn away what does not fit the network; the geometry checks the rest."""
        check_clouds(data, self.dim, self.in_channels, next(self.parameters()).device)

    def _input(self, data: Data, batch_size: int) -> Tensor:
        """Positions relative to their cloud's mean, then the other features."""
        pos, dtype = geometry_dtype(data.pos), next(self.parameters()).dtype
        batch = data.batch
        if batch is None:
            batch = torch.zeros(len(pos), dtype=torch.int64, device=pos.device)
        # From the lowest corner on: the sum of many points far from the origin would lose digits.
        low = scatter(pos.detach(), batch, dim_size=batch_size, reduce="min")
        pos = pos - low[batch]
        mean = scatter(pos, batch, dim_size=batch_size, reduce="mean")
        x = (pos - mean[batch]).to(dtype)
        return torch.cat([x, data.x.to(dtype)], dim=1) if self.in_channels else x


def _batch_size(data: Data) -> int | None:
    """Number of clouds of a batch; counts empty ones at the end."""
    return data.num_graphs if data.batch is not None and hasattr(data, "num_graphs") else None
