"""The published network of context clusters for 3D point clouds."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import AnchorPlan, Hierarchy, planned_anchors
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.join import known_hierarchy
from pointcluster.models.base import check_entries, check_equally_many
from pointcluster.models.clouds import check_clouds, cloud_of
from pointcluster.models.clusters import (
    anchor_of_input,
    chosen_block,
    evaluating,
    nearest_anchor,
)
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


class PointMLPCoC(nn.Module):
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

    Shapes:
        - **data:** `pos` $(N, D)$, `batch` $(N)$, and `x` $(N, F)$ where `in_channels` is F
        - **output:** $(B, \text{classes})$

    Raises:
        ValueError: The lists differ in length, or `start` is unknown.
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
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes, least=0)
        check_positive("in_channels", in_channels, least=0)
        check_equally_many(channels=channels, blocks=blocks, depths=depths, ratios=ratios)
        check_positive("dim", dim)
        check_entries(1, channels=channels, head_hidden=head_hidden)
        check_entries(0, blocks=blocks, depths=depths)
        if start not in ("first", "far"):
            raise ValueError(f"start must be 'first' or 'far', found {start!r}")
        self.config: dict[str, Any] = {}  # what create_model() builds it from
        self.num_classes, self.in_channels, self.dim = num_classes, in_channels, dim
        # The anchors of a stage are the first ones of the stage before.
        self.plans = [AnchorPlan(r, k, "first" if s else start) for s, r in enumerate(ratios)]
        self.embedding = nn.Sequential(
            nn.Linear(dim + in_channels, embedding, bias=False), BatchNorm(embedding), nn.ReLU()
        )
        self.encoders: Any = nn.ModuleList()
        self.stages: Any = nn.ModuleList()
        width = embedding
        for wide, count, depth, ratio in zip(channels, blocks, depths, ratios, strict=True):
            self.encoders.append(GroupEncoder(width, wide, k=k, num=ratio, blocks=count))
            self.stages.append(nn.Sequential(*(ResidualMLP(wide) for _ in range(depth))))
            width = wide
        shares = list(itertools.accumulate(ratios, operator.mul))
        self.feature_info = [
            {"num_chs": wide, "reduction": round(1 / share), "module": f"stages.{s}"}
            for s, (wide, share) in enumerate(zip(channels, shares, strict=True))
        ]
        self.num_features = width
        neck: list[nn.Module] = []
        for wide in head_hidden:
            neck += [nn.Linear(width, wide), BatchNorm(wide), nn.ReLU(), nn.Dropout(dropout)]
            width = wide
        self.neck = nn.Sequential(*neck)
        self.head_hidden_size = width
        self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()

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
        self._check(data)
        known = known_hierarchy(data, self.plans)
        if known is not None:
            return known
        size = data.num_graphs if data.batch is not None and hasattr(data, "num_graphs") else None
        return planned_anchors(data.pos, self.plans, data.batch, batch_size=size)

    def forward_features(self, data: Data, hierarchy: Hierarchy | None = None) -> Features:
        """The points of the last stage with their features."""
        x, hierarchy = self._start(data, hierarchy)
        for encoder, stage, (anchors, _) in zip(
            self.encoders, self.stages, hierarchy.stages, strict=True
        ):
            x = stage(encoder(x, anchors)[0])
        return Features(x, anchors.pos, anchors.batch, hierarchy.batch_size)

    def forward_head(self, features: Features, pre_logits: bool = False) -> Tensor:
        """Pool each cloud's points and classify; `pre_logits` stops before the classifier."""
        x, _, batch, size, _ = features
        x = self.neck(scatter(x, batch, dim_size=size, reduce="max"))
        return x if pre_logits else self.head(x)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0 leaves it out."""
        check_positive("num_classes", num_classes, least=0)
        self.num_classes = num_classes
        if self.config:
            self.config["num_classes"] = num_classes
        like = next(self.parameters())
        self.head = (
            nn.Linear(self.head_hidden_size, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Load a checkpoint of the published implementation, strictly.

        Args:
            state_dict: Its entries, as they are or under `net`, `state_dict` or `model`, also with
                a `module.` prefix.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        own = self.state_dict()
        self.load_state_dict(published_cloud_entries(state_dict, own))

    @property
    def num_blocks(self) -> list[int]:
        """Blocks over groups of each stage."""
        return [len(encoder.clusters) for encoder in self.encoders]

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

        Each group is a region with one centre, its anchor, and groups overlap: of those that hold a
        point it belongs to the one that it is most similar to, of equals to the first. A point that
        none holds goes with its nearest anchor, and in later stages a point of the input, stage by
        stage, with its nearest anchor.

        Args:
            data: The clouds.
            stage: Which stage; negative ones count from the end.
            block: Which of the blocks over its groups; negative ones count from the end.
            head: Which of its heads; each block has one.
            hierarchy: Geometry worked out before.

        Raises:
            IndexError: There is no such stage, block or head.
            TypeError: One of them is no integer.
        """
        heads = [[each.heads for each in encoder.clusters] for encoder in self.encoders]
        stage, block, head = chosen_block(heads, stage, block, head)
        with evaluating(self):
            x, hierarchy = self._start(data, hierarchy)
            *before, anchors = [each.anchors for each in hierarchy.stages[: stage + 1]]
            for s, each in enumerate(before):
                x = self.stages[s](self.encoders[s](x, each)[0])
            similarity = self.encoders[stage].similarities(x, anchors, block)  # [R, k]
        parent = anchor_of_input(data, before)
        pos, batch = (before[-1].pos, before[-1].batch) if before else (data.pos, cloud_of(data))
        group, best = _most_similar(similarity, anchors.grouping, len(x))
        # An anchor lies in its own group.
        with_anchor = anchors.anchor[nearest_anchor(pos.to(data.pos.dtype), batch, anchors)]
        group = torch.where(best >= 0, group, group[with_anchor])
        best = torch.where(best >= 0, best, best[with_anchor])
        return PointClusters(
            index=group[parent, None],
            similarity=best[parent, None],
            region=group[parent],
            batch=cloud_of(data),
            center_pos=anchors.pos.to(data.pos.dtype),
            center_batch=anchors.batch,
        ).of_head(head)

    def _start(self, data: Data, hierarchy: Hierarchy | None) -> tuple[Tensor, Hierarchy]:
        """What each point begins with, and the geometry."""
        self._check(data)
        if hierarchy is None:
            hierarchy = self.hierarchy(data)
        else:
            known_hierarchy(data, self.plans, hierarchy)
        dtype = next(self.parameters()).dtype
        x = data.pos.to(dtype)
        return self.embedding(
            torch.cat([x, data.x.to(dtype)], dim=1) if self.in_channels else x
        ), hierarchy

    def _check(self, data: Data) -> None:
        """Turn away what does not fit the network; the geometry checks the rest."""
        device = next(self.parameters()).device
        check_clouds(data, self.dim, self.in_channels, device)


def _most_similar(similarity: Tensor, grouping: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The group that each point is most similar to, and how much; -1 if no group holds it."""
    point, s = grouping.reshape(-1), similarity.reshape(-1)
    best = s.new_full((size,), -1).scatter_reduce(0, point, s, "amax")
    group = torch.arange(len(grouping), device=s.device).repeat_interleave(grouping.size(1))
    group = group.masked_fill(s < best[point], len(grouping))  # not the most similar
    first = group.new_full((size,), len(grouping)).scatter_reduce(0, point, group, "amin")
    return first, best
