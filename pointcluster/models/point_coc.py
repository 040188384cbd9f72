"""Hierarchical networks of context clusters for 3D point clouds."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import Hierarchy, StagePlan, build_hierarchy
from pointcluster.geometry.check import check_positive, geometry_dtype
from pointcluster.models.base import Network, check_entries, check_equally_many, rising
from pointcluster.models.clouds import (
    check_clouds,
    cloud_hierarchy,
    cloud_of,
    maximum,
)
from pointcluster.models.results import Features
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


class PointCoC(Network):
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
        features_only: Answer with the stages' :class:`Features` instead of class scores.
        out_indices: Which stages to answer with, in this order; all, if not said.

    Shapes:
        - **data:** `pos` $(N, D)$, `batch` $(N)$, and `x` $(N, F)$ where `in_channels` is F
        - **output:** $(B, \text{classes})$; with `features_only` a list of :class:`Features`

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: The lists differ in length, or `out_indices` repeat a stage or are none.
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
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        check_equally_many(
            channels=channels, depths=depths, heads=heads, ratios=ratios, encode=encode
        )
        check_positive("dim", dim)
        check_entries(1, channels=channels, heads=heads)
        check_entries(0, depths=depths, encode=encode)
        kept = itertools.accumulate(ratios, operator.mul)  # of the input's points
        super().__init__(
            num_classes,
            in_channels,
            channels,
            [round(1 / share) for share in kept],
            features_only=features_only,
            out_indices=out_indices,
        )
        self.dim = dim
        self.plans = [StagePlan(r, k, region_size, num_centers, center_k) for r in ratios]
        drop = iter(rising(drop_path, sum(depths)))
        self.pre_norms, self.reducers, self.norms, self.stages = (nn.ModuleList() for _ in range(4))
        width = dim + in_channels
        for s, wide in enumerate(channels):
            self.pre_norms.append(BatchNorm(width) if pre_norm and s else nn.Identity())
            self.reducers.append(
                PointReducer(
                    width,
                    wide,
                    k=k,
                    num=ratios[s],
                    dim=dim if relative else 0,
                    mode=reducer,
                    hidden=encode[s],
                )
            )
            self.norms.append(BatchNorm(wide) if norm else nn.Identity())
            self.stages.append(
                nn.ModuleList(
                    ContextClusterBlock(
                        wide,
                        heads=heads[s],
                        head_channels=wide // heads[s],
                        num_centers=num_centers,
                        k=center_k,
                        region_size=region_size,
                        mlp_ratio=mlp_ratio,
                        drop_path=next(drop),
                        layer_scale=layer_scale,
                    )
                    for _ in range(depths[s])
                )
            )
            width = wide
        self.num_features, self.head_hidden_size = 2 * width, head_hidden
        if not features_only:
            self.norm = CloudNorm(width)
            self.neck = nn.Sequential(
                nn.Linear(self.num_features, head_hidden), nn.GELU(), nn.Dropout(dropout)
            )
            self.head = self.new_head(num_classes)

    def forward_stages(
        self, data: Data, hierarchy: Hierarchy | None = None, *, stop: tuple[int, int] | None = None
    ) -> Iterator[Features]:
        """The anchors of each stage with their features."""
        hierarchy = self.checked_hierarchy(data, hierarchy)
        x = self.points(data, hierarchy.batch_size).x  # [N, D + F]
        for s, (anchors, geometry) in enumerate(hierarchy.stages):
            x = self.pre_norms[s](x)
            x, pos, batch = self.reducers[s](x, anchors)  # [N_s, C_s], [N_s, D], [N_s]
            x = self.norms[s](x)
            x = self.run(s, x, geometry, stop)  # [N_s, C_s]
            yield Features(x, pos, batch, hierarchy.batch_size, anchors.cloud_size)

    def pool(self, features: Features) -> Tensor:
        """Mean and maximum of each cloud's points. [B, 2 C]"""
        x, _, batch, size, _ = features
        mean = scatter(x, batch, dim_size=size, reduce="mean")
        return torch.cat([mean, maximum(x, batch, size)], dim=1)

    def points(self, data: Data, batch_size: int) -> Features:
        """The clouds as the first stage takes them: positions from the cloud's mean, features."""
        pos, batch = geometry_dtype(data.pos), cloud_of(data)
        # From the lowest corner on: the sum of many points far from the origin would lose digits.
        low = scatter(pos.detach(), batch, dim_size=batch_size, reduce="min")  # [B, D]
        x = pos - low[batch]
        mean = scatter(x, batch, dim_size=batch_size, reduce="mean")  # [B, D]
        dtype = next(self.parameters()).dtype
        x = (x - mean[batch]).to(dtype)
        if self.in_channels:
            x = torch.cat([x, data.x.to(dtype)], dim=1)  # [N, D + F]
        return Features(x, pos, batch, batch_size)

    def check(self, data: Data) -> None:
        """Turn away what does not fit the network; the geometry checks the rest."""
        check_clouds(data, self.dim, self.in_channels, next(self.parameters()).device)

    def build_hierarchy(self, data: Data) -> Hierarchy:
        """Work out anchors, regions and centres of all stages."""
        return cloud_hierarchy(build_hierarchy, data, self.plans)
