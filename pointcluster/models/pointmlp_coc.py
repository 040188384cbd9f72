"""The published network of context clusters for 3D point clouds."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pointcluster.geometry import AnchorPlan, Hierarchy, planned_anchors
from pointcluster.geometry.check import check_positive
from pointcluster.models.base import Network, check_entries, check_equally_many
from pointcluster.models.clouds import (
    check_clouds,
    cloud_hierarchy,
    cloud_of,
    maximum,
)
from pointcluster.models.clusters import anchor_of_input, nearest_anchor
from pointcluster.models.published import published_cloud_entries
from pointcluster.models.results import Features, PointClusters
from pointcluster.nn import BatchNorm, GroupEncoder, ResidualMLP


class Size(NamedTuple):
    """What makes one network larger than another; the terms are :class:`PointMLPCoC`'s."""

    embedding: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    depths: tuple[int, ...]
    ratios: tuple[float, ...]
    k: int
    head_hidden: tuple[int, ...]


# fmt: off
SIZES = {
    # channels of a point at first, and of the stages; blocks over groups and of anchors, and share
    # of points kept, for each stage; points of a group; hidden channels of the head
    "pointmlp_coc": Size(
        64, (128, 256, 512, 1024), (2, 2, 2, 2), (2, 2, 2, 2), (0.5,) * 4, 24, (512, 256)),
}
# fmt: on
"""The networks by name."""


class PointMLPCoC(Network):
    r"""A classifier of point clouds: PointMLP with context clusters, the paper's 3D network.

    Each stage keeps half of the points as anchors. An anchor's group is its 24 nearest points, on
    which context clusters with one centre and MLPs work in turn; the maximum over the group is the
    anchor's, and goes through MLPs of its own. The last anchors are pooled by maximum.

    With a published checkpoint, which :meth:`load_published` takes, it answers as the published
    code does for 1,024 points. (That keeps 512, 256, 128 and 64 anchors of clouds of any size; this
    network keeps these shares of them.) Positions enter as they are: scale and centre clouds as in
    training. A cloud of fewer than k points fills its groups by repeating them.

    "Image as Set of Points", Ma et al., ICLR 2023, <https://arxiv.org/abs/2303.01494>, on the frame
    of "PointMLP", Ma et al., ICLR 2022, <https://arxiv.org/abs/2202.07123>.

    Args:
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the features `x` that come with the positions (normals, colours).
        embedding: Channels of a point before the first stage.
        channels: Channels of the stages.
        blocks: Context clusters, each with an MLP, over the stages' groups.
        depths: MLPs of the stages' anchors.
        ratios: Anchors of each stage as a share of the points before.
        k: Points of a group.
        head_hidden: Channels between pooling and classifier.
        start: The first anchor: `"first"`, the cloud's first point, as published, in training and
            in evaluation alike; or `"far"`, the point farthest from the cloud's mean, with which
            nothing depends on the order of the points.
        dim: Number of axes of the positions.
        dropout: Share of the head's hidden channels left out in training.
        features_only: Answer with the stages' :class:`Features` instead of class scores.
        out_indices: Which stages to answer with, in this order; all, if not said.

    Shapes:
        - **data:** `pos` $(N, D)$, `batch` $(N)$, and `x` $(N, F)$ where `in_channels` is F
        - **output:** $(B, \text{classes})$; with `features_only` a list of :class:`Features`

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: The lists differ in length, `start` is unknown, or `out_indices` repeat a stage
            or are none.
    """

    def __init__(
        self,
        num_classes: int = 40,
        in_channels: int = 0,
        *,
        embedding: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        depths: Sequence[int],
        ratios: Sequence[float],
        k: int = 24,
        head_hidden: Sequence[int] = (512, 256),
        start: str = "first",
        dim: int = 3,
        dropout: float = 0.5,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        check_equally_many(channels=channels, blocks=blocks, depths=depths, ratios=ratios)
        check_positive("dim", dim)
        check_entries(1, channels=channels, head_hidden=head_hidden)
        check_entries(0, blocks=blocks, depths=depths)
        if start not in ("first", "far"):
            raise ValueError(f"start must be 'first' or 'far', found {start!r}")
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
        # The anchors of a stage are the first ones of the stage before.
        self.plans = [AnchorPlan(r, k, "first" if s else start) for s, r in enumerate(ratios)]
        self.embedding = nn.Sequential(
            nn.Linear(dim + in_channels, embedding, bias=False), BatchNorm(embedding), nn.ReLU()
        )
        self.encoders: Any = nn.ModuleList()
        self.stages = nn.ModuleList()
        width = embedding
        for wide, count, depth, ratio in zip(channels, blocks, depths, ratios, strict=True):
            self.encoders.append(GroupEncoder(width, wide, k=k, num=ratio, blocks=count))
            self.stages.append(nn.Sequential(*(ResidualMLP(wide) for _ in range(depth))))
            width = wide
        self.num_features = width
        self.head_hidden_size = head_hidden[-1] if head_hidden else width
        if not features_only:
            neck: list[nn.Module] = []
            for wide in head_hidden:
                neck += [nn.Linear(width, wide), BatchNorm(wide), nn.ReLU(), nn.Dropout(dropout)]
                width = wide
            self.neck = nn.Sequential(*neck)
            self.head = self.new_head(num_classes)

    def forward_stages(
        self, data: Data, hierarchy: Hierarchy | None = None, *, stop: tuple[int, int] | None = None
    ) -> Iterator[Features]:
        """The anchors of each stage with their features; `stop` is for blocks of anchors alone."""
        hierarchy = self.checked_hierarchy(data, hierarchy)
        x = self.points(data, hierarchy.batch_size).x  # [N, E]
        for s, (anchors, _) in enumerate(hierarchy.stages):
            x, pos, batch = self.call(self.encoders[s], x, anchors)  # [N_s, C_s], ...,
            x = self.call(self.stages[s], x)  # [N_s, C_s]
            yield Features(x, pos, batch, hierarchy.batch_size, anchors.cloud_size)

    def points(self, data: Data, batch_size: int) -> Features:
        """The clouds as the first stage takes them: positions and features, embedded."""
        dtype = next(self.parameters()).dtype
        x = data.pos.to(dtype)
        if self.in_channels:
            x = torch.cat([x, data.x.to(dtype)], dim=1)  # [N, D + F]
        return Features(self.embedding(x), data.pos, cloud_of(data), batch_size)

    def norm_of(self, stage: int) -> nn.Module | None:
        """There is none."""
        return None

    def pool(self, features: Features) -> Tensor:
        """The maximum of each cloud's points. [B, C]"""
        x, _, batch, size, _ = features
        return maximum(x, batch, size)

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Load a checkpoint of the published implementation, strictly.

        Args:
            state_dict: Its entries, as they are or under `net`, `state_dict` or `model`, also with
                a `module.` prefix.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        self.load_state_dict(published_cloud_entries(state_dict, self.state_dict()))

    @property
    def heads(self) -> list[list[int]]:
        """Heads of every block over groups of every stage."""
        return [[cluster.heads for cluster in encoder.clusters] for encoder in self.encoders]

    def clusters_of(
        self, data: Data, stage: int, block: int, hierarchy: Hierarchy | None
    ) -> PointClusters:
        """The assignment in a block over groups, by its numbers from the front.

        Each group is a region with one centre, its anchor, and groups overlap: of those that hold a
        point it belongs to the one that it is most similar to, of equals to the first. A point that
        none holds goes with its nearest anchor.
        """
        hierarchy = self.checked_hierarchy(data, hierarchy)
        *before, anchors = [each.anchors for each in hierarchy.stages[: stage + 1]]
        x, pos, batch, *_ = (
            next(itertools.islice(self.forward_stages(data, hierarchy), stage - 1, None))
            if stage
            else self.points(data, hierarchy.batch_size)
        )
        similarity = self.encoders[stage].similarities(x, anchors, block)  # [R, k]
        group, best = _most_similar(similarity, anchors.grouping, len(x))  # [N_s], [N_s]
        # An anchor lies in its own group.
        with_anchor = anchors.anchor[nearest_anchor(pos.to(data.pos.dtype), batch, anchors)]
        group = torch.where(best >= 0, group, group[with_anchor])
        best = torch.where(best >= 0, best, best[with_anchor])
        parent = anchor_of_input(data, before)
        return PointClusters(
            index=group[parent, None],
            similarity=best[parent, None],
            region=group[parent],
            batch=cloud_of(data),
            center_pos=anchors.pos.to(data.pos.dtype),
            center_batch=anchors.batch,
        )

    def check(self, data: Data) -> None:
        """Turn away what does not fit the network; the geometry checks the rest."""
        check_clouds(data, self.dim, self.in_channels, next(self.parameters()).device)

    def build_hierarchy(self, data: Data) -> Hierarchy:
        """Work out anchors and groups of all stages."""
        return cloud_hierarchy(planned_anchors, data, self.plans)


def _most_similar(similarity: Tensor, grouping: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The group that each point is most similar to, and how much; -1 if no group holds it."""
    point, s = grouping.reshape(-1), similarity.reshape(-1)
    best = s.new_full((size,), -1).scatter_reduce(0, point, s, "amax")
    group = torch.arange(len(grouping), device=s.device).repeat_interleave(grouping.size(1))
    group = group.masked_fill(s < best[point], len(grouping))  # not the most similar
    first = group.new_full((size,), len(grouping)).scatter_reduce(0, point, group, "amin")
    return first, best
