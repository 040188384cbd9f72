"""The published networks of context clusters for pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import (
    Hierarchy,
    LatticeGeometry,
    LatticePlan,
    image_hierarchy,
    lattice_hierarchy,
    lattice_positions,
)
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.join import known_hierarchy
from pointcluster.geometry.pixels import picture_sizes
from pointcluster.models.clouds import cloud_of
from pointcluster.models.clusters import (
    anchor_of_input,
    chosen_block,
    evaluating,
    seen_from_input,
)
from pointcluster.models.published import published_entries
from pointcluster.models.results import Features, PointClusters, place
from pointcluster.nn import CloudNorm, ContextClusterBlock, PointReducer
from pointcluster.ops.precision import is_autocast


class Size(NamedTuple):
    """What makes one network larger than another; the terms are :class:`CoC`'s."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    head_channels: int
    mlp_ratios: tuple[int, ...]
    fold: tuple[int, ...]
    centers: tuple[int, ...]
    patch: int = 4
    strides: tuple[int, ...] | None = None
    norm: bool = False
    layer_scale: float | None = 1e-5


_TINY = ((32, 64, 196, 320), (3, 4, 5, 2), (4, 4, 8, 8), 24, (8, 8, 4, 4))
_SMALL = ((64, 128, 320, 512), (2, 2, 6, 2), (4, 4, 8, 8), 32, (8, 8, 4, 4))
_MEDIUM = ((64, 128, 320, 512), (4, 4, 12, 4), (6, 6, 12, 12), 32, (8, 8, 4, 4))
_BASE64 = ((64, 128, 320, 512), (6, 6, 24, 6), (8, 8, 16, 16), 32, (8, 8, 4, 4))
_BASE96 = ((96, 192, 384, 768), (4, 4, 12, 4), (8, 8, 16, 16), 32, (8, 8, 4, 4))
_FOLD, _FOUR = (8, 4, 2, 1), (2, 2, 2, 2)
# fmt: off
SIZES = {
    # channels, blocks and heads of each stage; channels a head; hidden channels of an MLP as a
    # multiple; regions along each axis of the stage's lattice; centres along each axis of a region;
    # and, where they are not the published ones: pixels along each axis of a first point, points
    # from one anchor to the next, normalised anchors, start of the branches' scales
    "coc_micro": Size(
        (32, 32, 64, 64, 128), (1,) * 5, (4, 4, 4, 4, 8), 16, (2,) * 5, (2, 2, 1, 1, 1), (2,) * 5,
        2, (2, 1, 2, 1, 2), True, None),
    "coc_tiny": Size(*_TINY, _FOLD, _FOUR),
    "coc_tiny2": Size(*_TINY, (7, 7, 1, 1), (4, 2, 7, 4)),
    "coc_tiny_plain": Size(*_TINY, (1, 1, 1, 1), (4, 4, 2, 2)),
    "coc_small": Size(*_SMALL, _FOLD, _FOUR),
    "coc_small_feat5": Size(*_SMALL, _FOLD, (5,) * 4),
    "coc_small_feat7": Size(*_SMALL, _FOLD, (7,) * 4),
    "coc_medium": Size(*_MEDIUM, _FOLD, _FOUR),
    "coc_medium_feat5": Size(*_MEDIUM, _FOLD, (5,) * 4),
    "coc_medium_feat7": Size(*_MEDIUM, _FOLD, (7,) * 4),
    "coc_base_dim64": Size(*_BASE64, _FOLD, _FOUR),
    "coc_base_dim96": Size(*_BASE96, _FOLD, _FOUR),
}
# fmt: on
"""The networks by name; `coc_micro` is this project's own, for pictures of 28 x 28."""


class CoC(nn.Module):
    r"""A network of context clusters for pictures: a classifier, or a pyramid of features.

    A picture is a point set: pixels with their colours and positions. Each stage keeps anchors on
    an even lattice, which gather a square of points each (a linear map of what it holds: on a full
    lattice a convolution), and then works on them with context cluster blocks. It takes

    - a tensor of pictures, $(B, 3, H, W)$ of any size;
    - PyG `Data` or `Batch` whose points fill lattices, row by row: `x` the colours, `pos` and
      `grid`, as :class:`~pointcluster.transforms.ImageToPoints` makes them, of one size or several;
    - `Data` or `Batch` of any of their points, in any order: `x`, `pos` and `extent`, the size
      (H, W) of each picture; or with a hierarchy worked out before, beside them or by
      :class:`~pointcluster.transforms.PrecomputeHierarchy`.

    From "Image as Set of Points", Ma et al., ICLR 2023, <https://arxiv.org/abs/2303.01494>.

    Args:
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the pictures.
        channels: Channels of the stages.
        depths: Blocks of the stages.
        heads: Heads in the stages' blocks.
        head_channels: Channels a head.
        mlp_ratios: Hidden channels of the stages' MLPs as a multiple.
        fold: Regions along each axis of the stages' lattices.
        centers: Centres along each axis of a region, for each stage or for all.
        patch: Side of the square of pixels that a point of the first stage gathers.
        strides: Points from one anchor of each stage to the next along an axis; of the first stage,
            pixels; if not said, `patch` and then 2.
        norm: Normalise the anchors of each stage over the batch, channel by channel, and bend them
            by GELU. It makes small networks learn far faster; the published ones do without.
        dropout: Share of the MLPs' hidden channels left out in training.
        drop_path: Probability of leaving out the last block's branches for a picture in training;
            it rises evenly from 0 at the first.
        layer_scale: Start of the scales of the blocks' branches; `None` leaves them out.
        features_only: Answer with the stages' features, normalised, instead of class scores.
        out_indices: Which stages to answer with, in this order; all, if not said.

    Shapes:
        - **input:** $(B, 3, H, W)$, or points
        - **output:** $(B, \text{classes})$; with `features_only` a list of $(B, C_s, H_s, W_s)$

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: The lists differ in length, or `out_indices` repeat a stage or are none.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        channels: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        head_channels: int = 24,
        mlp_ratios: Sequence[float],
        fold: Sequence[int],
        centers: Sequence[int] | int = 2,
        patch: int = 4,
        strides: Sequence[int] | None = None,
        norm: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-5,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes, least=0)
        check_positive("in_channels", in_channels)
        check_positive("patch", patch)
        centers = [centers] * len(channels) if isinstance(centers, int) else list(centers)
        strides = [patch] + [2] * (len(channels) - 1) if strides is None else list(strides)
        lists = (channels, depths, heads, mlp_ratios, fold, centers, strides)
        if len({len(each) for each in lists}) > 1:
            raise ValueError(
                "channels, depths, heads, mlp_ratios, fold, centers and strides must be equally "
                f"many, found {', '.join(str(len(each)) for each in lists)}"
            )
        for stride in strides:
            check_positive("each entry of strides", stride)
        if out_indices is not None and not features_only:
            raise ValueError("out_indices say which features to give: set features_only=True")
        self.config: dict[str, Any] = {}  # what create_model() builds it from
        self.num_classes, self.in_channels = num_classes, in_channels
        self.num_features = self.head_hidden_size = channels[-1]
        self.features_only = features_only
        self.grad_checkpointing = False
        stages = range(len(channels))
        chosen = (
            stages if out_indices is None else [place("stage", i, len(stages)) for i in out_indices]
        )
        self.out_indices = tuple(chosen)
        if out_indices is not None and not 0 < len(set(chosen)) == len(chosen):
            raise ValueError(
                f"out_indices must name stages, each once, found {tuple(out_indices)}: choose "
                f"of 0 to {len(stages) - 1}"
            )
        self.plans = [
            LatticePlan(*((3, step, 1) if s else (patch, step, 0)), f, c)
            for s, (step, f, c) in enumerate(zip(strides, fold, centers, strict=True))
        ]
        drop = [drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths))]
        self.reducers: Any = nn.ModuleList()
        self.stages: Any = nn.ModuleList()
        width = in_channels + 2
        for s, plan in enumerate(self.plans):
            wide = channels[s]
            self.reducers.append(
                PointReducer(
                    width, wide, k=plan.kernel**2, num=1 / plan.stride**2, dim=0, norm=norm
                )
            )
            blocks = (
                ContextClusterBlock(
                    wide,
                    heads=heads[s],
                    head_channels=head_channels,
                    num_centers=plan.centers**2,
                    k=None,
                    mlp_ratio=mlp_ratios[s],
                    dropout=dropout,
                    drop_path=drop.pop(0),
                    layer_scale=layer_scale,
                )
                for _ in range(depths[s])
            )
            self.stages.append(nn.ModuleList(blocks))
            width = wide
        self.feature_info = [
            {"num_chs": channels[s], "reduction": math.prod(strides[: s + 1])}
            | {"module": f"stages.{s}"}
            for s in stages
        ]
        if features_only:
            self.norms: Any = nn.ModuleDict(
                {str(s): CloudNorm(channels[s]) for s in self.out_indices}
            )
        else:
            self.norm: Any = CloudNorm(width)
            self.head = nn.Linear(width, num_classes) if num_classes else nn.Identity()
            _initialise(self.head)
        if layer_scale is not None:  # without the scales, so small a start takes long to leave
            for module in self.modules():
                if isinstance(module, ContextClusterBlock):
                    _initialise(module.mlp)

    def forward(
        self, data: Tensor | Data, hierarchy: Hierarchy | None = None
    ) -> Tensor | list[Tensor] | list[Features]:
        """Class scores of each picture, or the stages' features.

        Args:
            data: Pictures or their points.
            hierarchy: Geometry of loose points, worked out before by :func:`image_hierarchy`.

        Raises:
            TypeError, ValueError: The input does not fit the network.
        """
        if self.features_only:
            return self.forward_pyramid(data, hierarchy)
        return self.forward_head(self.forward_features(data, hierarchy))

    def forward_features(
        self, data: Tensor | Data, hierarchy: Hierarchy | None = None
    ) -> Tensor | Features:
        """The last stage's features, normalised: a map for a tensor, points for points."""
        last = len(self.stages) - 1
        return self._pyramid(data, hierarchy, {last: self.norm})[0]

    def forward_pyramid(
        self, data: Tensor | Data, hierarchy: Hierarchy | None = None
    ) -> list[Tensor] | list[Features]:
        """The chosen stages' features, normalised where the network has a norm for them."""
        norms = (
            {s: self.norms[str(s)] for s in self.out_indices}
            if self.features_only
            else {s: nn.Identity() for s in self.out_indices}
        )
        return self._pyramid(data, hierarchy, norms)

    def forward_head(self, features: Tensor | Features, pre_logits: bool = False) -> Tensor:
        """Average each picture's points and classify; `pre_logits` stops before the classifier."""
        if isinstance(features, Features):
            x, _, batch, size, _ = features
            x = scatter(x, batch, dim_size=size, reduce="mean")
        else:
            x = features.mean(dim=(2, 3))
        return x if pre_logits else self.head(x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; 0 leaves it out."""
        check_positive("num_classes", num_classes, least=0)
        if self.features_only:
            raise ValueError("a network of features only has no classifier")
        if global_pool not in (None, "avg"):
            raise ValueError(f"pictures are averaged: global_pool = 'avg', found {global_pool!r}")
        self.num_classes = num_classes
        if self.config:
            self.config["num_classes"] = num_classes
        like = self.norm.weight
        self.head = (
            nn.Linear(len(like), num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )
        _initialise(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training keep only what goes into each block, and work the rest out again."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last linear map."""
        return self.head

    def load_published(self, state_dict: Mapping[str, Any], *, ema: bool = False) -> None:
        """Load a checkpoint of the published implementation, strictly.

        Args:
            state_dict: Its entries, as they are or under `state_dict` or `model`, also with a
                `module.` prefix, and with MLPs as linear maps or as 1 x 1 convolutions.
            ema: Take the averaged weights under `state_dict_ema`.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        own = self.state_dict()
        self.load_state_dict(published_entries(state_dict, own, ema=ema))

    @property
    def num_blocks(self) -> list[int]:
        """Blocks of each stage."""
        return [len(blocks) for blocks in self.stages]

    @torch.no_grad()
    def clusters(
        self,
        data: Tensor | Data,
        stage: int = -1,
        block: int = -1,
        head: int | None = None,
        *,
        hierarchy: Hierarchy | None = None,
    ) -> PointClusters:
        """The assignment in one block, for every point of the input.

        A pixel belongs to the cluster of the cell that covers it; a loose point, stage by stage, to
        that of its nearest anchor.

        Args:
            data: Pictures or their points; a tensor's pixels count picture by picture, row by row.
            stage: Which stage; negative ones count from the end.
            block: Which of its blocks; negative ones count from the end.
            head: Which of its heads; negative ones count from the end. `None`: all.
            hierarchy: Geometry of loose points, worked out before.

        Raises:
            IndexError: There is no such stage, block or head.
            TypeError: One of them is no integer.
        """
        heads = [[block.cluster.heads for block in blocks] for blocks in self.stages]
        stage, block, head = chosen_block(heads, stage, block, head)
        with evaluating(self):
            return self._clusters(data, stage, block, hierarchy).of_head(head)

    def _pyramid(
        self, data: Tensor | Data, hierarchy: Hierarchy | None, norms: Mapping[int, nn.Module]
    ) -> list[Any]:
        found = self._ascending(data, hierarchy, norms)
        maps = dict(zip(sorted(norms), found, strict=True))
        return [maps[s] for s in norms]

    def _ascending(
        self, data: Tensor | Data, hierarchy: Hierarchy | None, norms: Mapping[int, nn.Module]
    ) -> list[Any]:
        """The stages' features as they are worked out, from the first stage on."""
        if isinstance(data, Tensor):
            if hierarchy is not None:
                raise ValueError("a hierarchy goes with points, not with a tensor of pictures")
            self._check_images(data)
            return [
                _norm(norms[s], x, None, data.size(0), g.num_points, g)
                for s, (x, g) in enumerate(self._lattice_stages(data, max(norms)))
                if s in norms
            ]
        grids = self._check_points(data, hierarchy)
        if grids is None:
            return self._loose_pyramid(data, self._hierarchy(data, hierarchy), norms)
        return self._lattices_pyramid(data, grids, norms)

    def _lattice_stages(
        self, images: Tensor, last: int, pos: Tensor | None = None, depth: int | None = None
    ) -> Iterator[tuple[Tensor, LatticeGeometry]]:
        """The stages' features on full lattices of one size, stored as their geometry says.

        Those of the last stage are worked out up to the block of number `depth`.
        """
        grid = (images.size(2), images.size(3))
        stages = lattice_hierarchy(grid, self.plans, device=images.device)
        if pos is None:
            pos = lattice_positions(grid, dtype=images.dtype, device=images.device)
            pos = pos.t().reshape(1, 2, *grid).expand(images.size(0), -1, -1, -1)
        x = torch.cat([images, pos], dim=1)
        for s in range(last + 1):
            geometry = stages[s].clusters
            if s:
                x = stages[s].before.to_rows(x).permute(0, 3, 1, 2)
            x = self.reducers[s](x, stages[s])
            x = self._run(s, x, geometry, depth if s == last else None)
            yield x, geometry

    def _run(self, stage: int, x: Tensor, geometry: Any, depth: int | None) -> Tensor:
        """The blocks of a stage, up to that of number `depth`."""
        for number, block in enumerate(self.stages[stage]):
            if number == depth:
                break
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, geometry, use_reentrant=False)
            else:
                x = block(x, geometry)
        return x

    def _lattices_pyramid(
        self, data: Data, grids: list[tuple[int, int]], norms: Mapping[int, nn.Module]
    ) -> list[Features]:
        """Pictures of several sizes: those of one size go together, without padding."""
        dtype = next(self.parameters()).dtype
        sizes = [h * w for h, w in grids]
        colours = data.x.to(dtype).split(sizes)
        places = data.pos.to(dtype).split(sizes)
        out: list[list[Any]] = [[None] * len(grids) for _ in norms]
        for grid in dict.fromkeys(grids):
            members = [i for i, each in enumerate(grids) if each == grid]
            images, pos = (
                torch.stack([each[i] for i in members]).view(len(members), *grid, -1)
                for each in (colours, places)
            )
            images, pos = images.permute(0, 3, 1, 2), pos.permute(0, 3, 1, 2)
            found = enumerate(self._lattice_stages(images, max(norms), pos))
            for slot, (s, (x, geometry)) in zip(
                range(len(norms)), ((s, each) for s, each in found if s in norms), strict=True
            ):
                rows = _norm(norms[s], x, None, len(members), geometry.num_points, geometry)
                rows = rows.flatten(2).mT  # [b, n, C]
                middle = self._cell_positions(s, grid, geometry.grid, data.pos)
                for i, each in zip(members, rows, strict=True):
                    out[slot][i] = (each, middle)
        batch_size = len(grids)
        features = []
        for pictures in out:
            count = torch.tensor([len(x) for x, _ in pictures], device=data.pos.device)
            batch = torch.arange(batch_size, device=data.pos.device).repeat_interleave(count)
            x = torch.cat([x for x, _ in pictures])
            features.append(Features(x, torch.cat([p for _, p in pictures]), batch, batch_size))
        return features

    def _cell_positions(
        self, stage: int, grid: tuple[int, int], cells: tuple[int, int], like: Tensor
    ) -> Tensor:
        """Where the squares of a stage's cells have their middle, in the picture's positions."""
        axes = []
        for size, count in zip(grid, cells, strict=True):
            where = torch.arange(count, device=like.device).to(like.dtype)
            for plan in reversed(self.plans[: stage + 1]):
                where = where * plan.stride - plan.padding + (plan.kernel - 1) / 2
            axes.append(where.div(max(1, size - 1)).clamp(0, 1) - (0.5 if size > 1 else 0))
        rows, cols = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([rows.flatten(), cols.flatten()], dim=1)

    def _loose_stages(
        self, data: Data, hierarchy: Hierarchy, last: int, depth: int | None = None
    ) -> Iterator[tuple[Tensor, Any]]:
        dtype = next(self.parameters()).dtype
        x = torch.cat([data.x.to(dtype), data.pos.to(dtype)], dim=1)
        for s in range(last + 1):
            anchors, clusters = hierarchy.stages[s]
            x = self.reducers[s](x, anchors)[0]
            x = self._run(s, x, clusters, depth if s == last else None)
            yield x, hierarchy.stages[s]

    def _loose_pyramid(
        self, data: Data, hierarchy: Hierarchy, norms: Mapping[int, nn.Module]
    ) -> list[Features]:
        features = []
        for s, (x, (anchors, _)) in enumerate(self._loose_stages(data, hierarchy, max(norms))):
            if s in norms:
                size = hierarchy.batch_size
                x = _norm(norms[s], x, anchors.batch, size, anchors.cloud_size, None)
                features.append(Features(x, anchors.pos, anchors.batch, size))
        return features

    def hierarchy(self, data: Data) -> Hierarchy:
        """The geometry of all stages for loose points with `extent`, or `grid`.

        It is what :class:`~pointcluster.transforms.PrecomputeHierarchy` worked out, where it did.

        Raises:
            TypeError, ValueError: The data carry one that does not fit.
        """
        known = known_hierarchy(data, self.plans)
        if known is not None:
            return known
        name = "grid" if data.get("extent") is None else "extent"
        sizes = picture_sizes(name, data.get(name))
        return image_hierarchy(data.pos, sizes, self.plans, data.batch)

    def _hierarchy(self, data: Data, hierarchy: Hierarchy | None) -> Hierarchy:
        return self.hierarchy(data) if hierarchy is None else hierarchy

    def _clusters(
        self, data: Tensor | Data, stage: int, block: int, hierarchy: Hierarchy | None
    ) -> PointClusters:
        if isinstance(data, Tensor):
            self._check_images(data)
            return self._lattice_clusters(data, stage, block, None)
        grids = self._check_points(data, hierarchy)
        if grids is None:
            return self._loose_clusters(data, self._hierarchy(data, hierarchy), stage, block)
        dtype, start, found = next(self.parameters()).dtype, 0, []
        for grid in grids:
            points = slice(start, start + grid[0] * grid[1])
            image, pos = (
                each[points].to(dtype).t().reshape(1, -1, *grid) for each in (data.x, data.pos)
            )
            found.append(self._lattice_clusters(image, stage, block, pos))
            start = points.stop
        return _joined(found)

    def _lattice_clusters(
        self, images: Tensor, stage: int, block: int, pos: Tensor | None
    ) -> PointClusters:
        grid = (images.size(2), images.size(3))
        stages = lattice_hierarchy(grid, self.plans, device=images.device)
        *_, (x, geometry) = self._lattice_stages(images, stage, pos, block)
        _, found = self.stages[stage][block](x, geometry, return_clusters=True)
        # The cell of each pixel, axis by axis, and the place where it is stored.
        axes = [torch.arange(size, device=images.device) for size in grid]
        for plan, each in zip(self.plans[: stage + 1], stages, strict=False):
            axes = [
                (axis // plan.stride).clamp(max=size - 1)
                for axis, size in zip(axes, each.clusters.grid, strict=True)
            ]
        row_major = (axes[0][:, None] * geometry.grid[1] + axes[1]).flatten()
        n, batch_size = geometry.num_points, images.size(0)
        stored = row_major if geometry.order is None else geometry.order.argsort()[row_major]
        image = torch.arange(batch_size, device=images.device)
        parent = (image[:, None] * n + stored).flatten()
        # A centre sits in the middle of the pixels that its point stands for.
        places = []
        for cell in axes:
            pixel = torch.arange(len(cell), device=cell.device).to(images.dtype)
            where = scatter(pixel, cell, reduce="mean") / max(1, len(cell) - 1)
            places.append(where - (0.5 if len(cell) > 1 else 0))
        middle = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=2).flatten(0, 1)
        middle = middle if geometry.order is None else middle[geometry.order]
        return seen_from_input(
            found,
            parent,
            image.repeat_interleave(len(row_major)),
            middle.repeat(batch_size, 1),
            image.repeat_interleave(n),
        )

    def _loose_clusters(
        self, data: Data, hierarchy: Hierarchy, stage: int, block: int
    ) -> PointClusters:
        *_, (x, (anchors, geometry)) = self._loose_stages(data, hierarchy, stage, block)
        _, found = self.stages[stage][block](x, geometry, return_clusters=True)
        parent = anchor_of_input(data, [each.anchors for each in hierarchy.stages[: stage + 1]])
        pos = anchors.pos.to(data.pos.dtype)
        return seen_from_input(found, parent, cloud_of(data), pos, anchors.batch)

    def _check_images(self, images: Tensor) -> None:
        weight = next(self.parameters())
        if images.dim() != 4 or images.size(1) != self.in_channels or 0 in images.shape:
            raise ValueError(
                f"the network needs pictures of shape [B, {self.in_channels}, H, W], none of them "
                f"0, found {list(images.shape)}"
            )
        if not images.is_floating_point():
            raise TypeError(f"pictures must be floating numbers, found {images.dtype}: scale them")
        if images.device != weight.device:
            raise ValueError(f"the pictures are on {images.device}, the network on {weight.device}")
        if images.dtype != weight.dtype and not is_autocast(images):
            raise ValueError(f"the pictures are {images.dtype}, the network {weight.dtype}")

    def _check_points(
        self, data: Data, hierarchy: Hierarchy | None
    ) -> list[tuple[int, int]] | None:
        """Turn away what does not fit; the lattices' sizes, or `None` for loose points."""
        if not isinstance(data, Data):
            raise TypeError(
                f"expected a tensor of pictures, or PyG Data or Batch, found {type(data).__name__}"
            )
        x, pos = data.x, data.pos
        if x is None or x.dim() != 2 or x.size(1) != self.in_channels:
            found = None if x is None else list(x.shape)
            raise ValueError(f"the network needs x of shape [N, {self.in_channels}], found {found}")
        if pos is None or pos.shape != (len(x), 2):
            found = None if pos is None else list(pos.shape)
            raise ValueError(f"the network needs pos of shape [{len(x)}, 2], found {found}")
        device = next(self.parameters()).device
        if x.device != device or pos.device != device:
            raise ValueError(f"x is on {x.device}, pos on {pos.device}, the network on {device}")
        grid = data.get("grid")
        if hierarchy is not None:
            if hierarchy.stages[0].anchors.num_points != len(x):
                raise ValueError(
                    f"the hierarchy is of {hierarchy.stages[0].anchors.num_points} points, "
                    f"found {len(x)}"
                )
            return None
        if grid is None:
            if data.get("extent") is None:
                raise ValueError(
                    "points of pictures need `grid`, the size (H, W) of the lattice that they "
                    "fill, or `extent`, the size of the picture that they are some points of"
                )
            return None
        grids = picture_sizes("grid", grid)
        total = sum(h * w for h, w in grids)
        if total != len(x):
            raise ValueError(
                f"the lattices {grids} hold {total} points, found {len(x)}: for some of a "
                "picture's points, give its size as `extent` instead of `grid`"
            )
        _check_lattice(pos, grids)
        return grids


def _check_lattice(pos: Tensor, grids: Sequence[tuple[int, int]]) -> None:
    """A lattice's points must lie row by row."""
    start = 0
    for grid in grids:
        part = pos[start : start + grid[0] * grid[1]]
        start += len(part)
        near = [
            torch.allclose(
                part.float(), lattice_positions(grid, kind, dtype=torch.float32, device=pos.device),
                rtol=0, atol=0.2 / max(grid),
            )
            for kind in ("published", "pixel")
        ]  # fmt: skip
        if not any(near):
            raise ValueError(
                f"the points of the lattice {grid} do not lie row by row in one of the conventions "
                "'published' and 'pixel': for points in another order, give `extent`, not `grid`"
            )


def _norm(
    norm: nn.Module,
    x: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None,
    geometry: LatticeGeometry | None,
) -> Tensor:
    """Normalise a stage's points; on a lattice, lay them out as maps [B, C, H, W]."""
    if not isinstance(norm, nn.Identity):
        x = norm(x, batch, batch_size, cloud_size)
    return x if geometry is None else geometry.to_rows(x).permute(0, 3, 1, 2)


def _joined(found: Sequence[PointClusters]) -> PointClusters:
    """One numbering for the clusters of several pictures."""
    parts, centers, regions = [], 0, 0
    for image, each in enumerate(found):
        parts.append(
            each._replace(
                index=each.index + centers,
                region=each.region + regions,
                batch=each.batch + image,
                center_batch=each.center_batch + image,
            )
        )
        centers += len(each.center_pos)
        regions += int(each.region.max()) + 1
    return PointClusters(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _initialise(module: nn.Module) -> None:
    """The published start of an MLP and a classifier; what were convolutions keep torch's own."""
    for linear in module.modules():
        # (Fake weights hold nothing, and torch's truncated normal looks at what it drew.)
        if isinstance(linear, nn.Linear) and not isinstance(linear.weight, FakeTensor):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
