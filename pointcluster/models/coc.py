"""The published networks of context clusters for pictures."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import (
    Hierarchy,
    LatticePlan,
    image_hierarchy,
    lattice_hierarchy,
    lattice_positions,
)
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.pixels import picture_sizes
from pointcluster.models.base import Network, check_equally_many, rising
from pointcluster.models.pictures import (
    Grid,
    cell_positions,
    check_images,
    check_lattices,
    check_pixels,
    joined_clusters,
    lattice_clusters,
    maps_of,
    packed,
)
from pointcluster.models.published import published_backbone, published_entries
from pointcluster.models.results import Features, PointClusters
from pointcluster.nn import CloudNorm, ContextClusterBlock, PointReducer


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
    "coc_nano": Size(
        (32, 64, 96, 160), (1, 1, 2, 1), (4, 4, 8, 8), 16, (4,) * 4, _FOLD, _FOUR,
        norm=True, layer_scale=None),
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
"""The networks by name. This project's own are `coc_micro`, for pictures of 28 x 28, and
`coc_nano`, for little data: with normalised anchors, without the branches' scales."""


class CoC(Network):
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
        output_stride: Pixels from one point of the last stage to the next, where fewer are wanted
            than the strides say, as in DeepLab: later stages keep all points of the one before, and
            gather from as far apart as they would. The weights are the same.
        features_only: Answer with the stages' features, normalised, instead of class scores.
        out_indices: Which stages to answer with, in this order; all, if not said.

    Shapes:
        - **input:** $(B, 3, H, W)$, or points
        - **output:** $(B, \text{classes})$; with `features_only` a list of $(B, C_s, H_s, W_s)$

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: The lists differ in length, no stage has `output_stride`, or `out_indices`
            repeat a stage or are none.
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
        output_stride: int | None = None,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
    ) -> None:
        check_positive("in_channels", in_channels)
        check_positive("patch", patch)
        centers = [centers] * len(channels) if isinstance(centers, int) else list(centers)
        strides = [patch] + [2] * (len(channels) - 1) if strides is None else list(strides)
        check_equally_many(
            channels=channels,
            depths=depths,
            heads=heads,
            mlp_ratios=mlp_ratios,
            fold=fold,
            centers=centers,
            strides=strides,
        )
        for stride in strides:
            check_positive("each entry of strides", stride)
        strides, dilations = dilated(strides, output_stride)
        super().__init__(
            num_classes,
            in_channels,
            channels,
            list(itertools.accumulate(strides, operator.mul)),
            features_only=features_only,
            out_indices=out_indices,
        )
        self.plans = [
            LatticePlan(3, step, apart, f, c, apart) if s else LatticePlan(patch, step, 0, f, c)
            for s, (step, apart, f, c) in enumerate(
                zip(strides, dilations, fold, centers, strict=True)
            )
        ]
        drop = iter(rising(drop_path, sum(depths)))
        self.reducers, self.stages = nn.ModuleList(), nn.ModuleList()
        width = in_channels + 2
        for s, (wide, plan) in enumerate(zip(channels, self.plans, strict=True)):
            self.reducers.append(
                PointReducer(
                    width, wide, k=plan.kernel**2, num=1 / plan.stride**2, dim=0, norm=norm
                )
            )
            self.stages.append(
                nn.ModuleList(
                    ContextClusterBlock(
                        wide,
                        heads=heads[s],
                        head_channels=head_channels,
                        num_centers=plan.centers**2,
                        k=None,
                        mlp_ratio=mlp_ratios[s],
                        dropout=dropout,
                        drop_path=next(drop),
                        layer_scale=layer_scale,
                    )
                    for _ in range(depths[s])
                )
            )
            width = wide
        self.num_features = self.head_hidden_size = width
        if features_only:
            self.norms = nn.ModuleDict({str(s): CloudNorm(channels[s]) for s in self.out_indices})
        else:
            self.norm = CloudNorm(width)
            self.neck = nn.Identity()
            self.head = self.new_head(num_classes)
        if layer_scale is not None:  # without the scales, so small a start takes long to leave
            for module in self.modules():
                if isinstance(module, ContextClusterBlock):
                    _initialise(module.mlp)

    def forward_stages(
        self,
        data: Tensor | Data,
        hierarchy: Hierarchy | None = None,
        *,
        stop: tuple[int, int] | None = None,
    ) -> Iterator[Any]:
        """The features after each stage: maps for a tensor's pictures, :class:`Features` else."""
        self.check(data)
        if isinstance(data, Tensor):
            if hierarchy is not None:
                raise ValueError("a hierarchy goes with points, not with a tensor of pictures")
            return self._lattices(data, None, stop)
        if hierarchy is None and (grids := self._grids(data)):
            return self._lattices_of_sizes(data, grids)
        return self._points(data, self.checked_hierarchy(data, hierarchy), stop)

    def _lattices(
        self, images: Tensor, pos: Tensor | None, stop: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Whole pictures of one size, with their pixels' positions or the published ones."""
        size = (images.size(2), images.size(3))
        if pos is None:
            pos = lattice_positions(size, dtype=images.dtype, device=images.device)  # [H * W, 2]
            pos = pos.t().reshape(1, 2, *size).expand(images.size(0), -1, -1, -1)
        x = torch.cat([images, pos], dim=1)  # [B, C_in + 2, H, W]
        for s, stage in enumerate(lattice_hierarchy(size, self.plans, device=images.device)):
            x = self.reducers[s](x, stage)  # [B * n_s, C_s], region by region
            x = self.run(s, x, stage.clusters, stop)  # [B * n_s, C_s]
            x = stage.clusters.to_rows(x).permute(0, 3, 1, 2)  # [B, C_s, H_s, W_s]
            yield x

    def _lattices_of_sizes(self, data: Data, grids: list[Grid]) -> Iterator[Features]:
        """Whole pictures of several sizes: those of one size go together, without padding."""
        dtype = next(self.parameters()).dtype
        images, pos = (maps_of(points.to(dtype), grids) for points in (data.x, data.pos))
        alike = {size: [i for i, grid in enumerate(grids) if grid == size] for size in grids}
        running = [
            self._lattices(torch.cat([images[i] for i in own]), torch.cat([pos[i] for i in own]))
            for own in alike.values()
        ]
        for s, maps in enumerate(zip(*running, strict=True)):
            pictures: list[Any] = [None] * len(grids)
            for (size, own), x in zip(alike.items(), maps, strict=True):
                where = cell_positions(self.plans[: s + 1], size, x.shape[2:], data.pos)  # [n, 2]
                for i, rows in zip(own, x.flatten(2).mT, strict=True):  # [n, C]
                    pictures[i] = (rows, where)
            yield packed(pictures)

    def _points(
        self, data: Data, hierarchy: Hierarchy, stop: tuple[int, int] | None = None
    ) -> Iterator[Features]:
        """Any points of pictures, with their geometry."""
        dtype = next(self.parameters()).dtype
        x = torch.cat([data.x.to(dtype), data.pos.to(dtype)], dim=1)  # [N, C_in + 2]
        for s, (anchors, geometry) in enumerate(hierarchy.stages):
            x, pos, batch = self.reducers[s](x, anchors)  # [N_s, C_s], [N_s, 2], [N_s]
            x = self.run(s, x, geometry, stop)  # [N_s, C_s]
            yield Features(x, pos, batch, hierarchy.batch_size, anchors.cloud_size)

    def norm_of(self, stage: int) -> nn.Module | None:
        """Of features alone every stage that is asked for has a norm, as published."""
        if self.features_only:
            return self.norms[str(stage)] if str(stage) in self.norms else None
        return super().norm_of(stage)

    def pool(self, features: Tensor | Features) -> Tensor:
        """The mean of each picture's points. [B, C]"""
        if isinstance(features, Tensor):
            return features.mean(dim=(2, 3))
        x, _, batch, size, _ = features
        return scatter(x, batch, dim_size=size, reduce="mean")

    def new_head(self, num_classes: int, **options: Any) -> nn.Module:
        """A classifier with the published start."""
        head = super().new_head(num_classes, **options)
        _initialise(head)
        return head

    def load_published(
        self, state_dict: Mapping[str, Any], *, ema: bool = False, backbone: bool = False
    ) -> None:
        """Load a checkpoint of the published implementation, strictly.

        Args:
            state_dict: Its entries, as they are or under `state_dict` or `model`, also with a
                `module.` prefix, and with MLPs as linear maps or as 1 x 1 convolutions.
            ema: Take the averaged weights under `state_dict_ema`.
            backbone: Start a network of features only: from a checkpoint of ImageNet, whose
                classifier, its norm and table of positions are left out, while the norms of the
                stages stay as they are; or from the entries `backbone.` of a checkpoint of
                segmentation or detection. A line says what was left out.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        own = self.state_dict()
        if not backbone:
            self.load_state_dict(published_entries(state_dict, own, ema=ema))
            return
        if not self.features_only:
            raise ValueError("backbone=True starts a network that was made with features_only=True")
        entries, left_out, fresh = published_backbone(state_dict, own, ema=ema)
        self.load_state_dict(entries)
        print(f"left out: {', '.join(left_out) or 'nothing'}; new: {', '.join(fresh) or 'nothing'}")

    def clusters_of(
        self, data: Tensor | Data, stage: int, block: int, hierarchy: Hierarchy | None
    ) -> PointClusters:
        """All heads' assignment in a block, by its numbers from the front."""
        self.check(data)
        if isinstance(data, Tensor):
            return self._lattice_clusters(data, None, stage, block)
        grids = self._grids(data)
        if hierarchy is not None or not grids:
            return super().clusters_of(data, stage, block, hierarchy)
        dtype = next(self.parameters()).dtype
        images, pos = (maps_of(points.to(dtype), grids) for points in (data.x, data.pos))
        return joined_clusters(
            [self._lattice_clusters(*one, stage, block) for one in zip(images, pos, strict=True)]
        )

    def _lattice_clusters(
        self, images: Tensor, pos: Tensor | None, stage: int, block: int
    ) -> PointClusters:
        running = self._lattices(images, pos, (stage, block))
        x = next(itertools.islice(running, stage, None))
        size, plans = (images.size(2), images.size(3)), self.plans[: stage + 1]
        stages = lattice_hierarchy(size, plans, device=images.device)
        return lattice_clusters(self.stages[stage][block], x, images, stages)

    def check(self, data: Tensor | Data) -> None:
        """Turn away what does not fit the network; the geometry checks the rest."""
        weight = next(self.parameters())
        if isinstance(data, Tensor):
            check_images(data, self.in_channels, weight)
        else:
            check_pixels(data, self.in_channels, weight.device)

    def build_hierarchy(self, data: Data) -> Hierarchy:
        """Work out anchors, regions and centres for points of pictures of known sizes."""
        name = "grid" if data.get("extent") is None else "extent"
        if data.get(name) is None:
            raise ValueError(
                "points of pictures need `grid`, the size (H, W) of the lattice that they "
                "fill, or `extent`, the size of the picture that they are some points of"
            )
        sizes = picture_sizes(name, data.get(name))
        return image_hierarchy(data.pos, sizes, self.plans, data.batch)

    def _grids(self, data: Data) -> list[Grid]:
        """The sizes of the lattices that the points fill; none for any points of pictures."""
        if data.get("grid") is None:
            return []
        grids = picture_sizes("grid", data.grid)
        check_lattices(data.pos, grids)
        return grids


def dilated(strides: Sequence[int], output_stride: int | None) -> tuple[list[int], list[int]]:
    """Strides that stop at a product, and how far apart squares gather in their stead.

    Args:
        strides: Points from one anchor of each stage to the next.
        output_stride: The largest product of strides; `None`: that of all.

    Raises:
        ValueError: No stage has that product.
    """
    products = list(itertools.accumulate(strides, operator.mul))
    if output_stride is None:
        return list(strides), [1] * len(strides)
    if output_stride not in products:
        raise ValueError(f"output_stride must be one of {products}, found {output_stride!r}")
    kept, dilations, dilation = [], [], 1
    for stride, product in zip(strides, products, strict=True):
        kept.append(stride if product <= output_stride else 1)
        dilations.append(dilation)  # what comes before is as dense as it is
        dilation *= 1 if product <= output_stride else stride
    return kept, dilations


def _initialise(module: nn.Module) -> None:
    """The published start of an MLP and a classifier; what were convolutions keep torch's own."""
    for linear in module.modules():
        # (Fake weights hold nothing, and torch's truncated normal looks at what it drew.)
        if isinstance(linear, nn.Linear) and not isinstance(linear.weight, FakeTensor):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
