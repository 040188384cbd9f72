"""Pictures as networks take them: tensors, points that fill lattices, and what belongs to these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from pointcluster.geometry import LatticePlan, LatticeStage, lattice_positions
from pointcluster.models.clusters import seen_from_input
from pointcluster.models.results import Features, PointClusters
from pointcluster.ops.precision import is_autocast

Grid = tuple[int, int]


def check_images(images: Tensor, in_channels: int, weight: Tensor) -> None:
    """Check that a tensor of pictures fits a network, of which a weight is given.

    Raises:
        TypeError: They are no floating numbers.
        ValueError: They have another shape, dtype or device.
    """
    if images.dim() != 4 or images.size(1) != in_channels or 0 in images.shape:
        raise ValueError(
            f"the network needs pictures of shape [B, {in_channels}, H, W], none of them "
            f"0, found {list(images.shape)}"
        )
    if not images.is_floating_point():
        raise TypeError(f"pictures must be floating numbers, found {images.dtype}: scale them")
    if images.device != weight.device:
        raise ValueError(f"the pictures are on {images.device}, the network on {weight.device}")
    if images.dtype != weight.dtype and not is_autocast(images):
        raise ValueError(f"the pictures are {images.dtype}, the network {weight.dtype}")


def check_pixels(data: Data, in_channels: int, device: torch.device) -> None:
    """Check that points of pictures fit a network.

    Raises:
        TypeError: They are no PyG Data.
        ValueError: Colours or positions are missing, of another shape, or elsewhere.
    """
    if not isinstance(data, Data):
        raise TypeError(
            f"expected a tensor of pictures, or PyG Data or Batch, found {type(data).__name__}"
        )
    x, pos = data.x, data.pos
    if x is None or x.dim() != 2 or x.size(1) != in_channels:
        found = None if x is None else list(x.shape)
        raise ValueError(f"the network needs x of shape [N, {in_channels}], found {found}")
    if pos is None or pos.shape != (len(x), 2):
        found = None if pos is None else list(pos.shape)
        raise ValueError(f"the network needs pos of shape [{len(x)}, 2], found {found}")
    if x.device != device or pos.device != device:
        raise ValueError(f"x is on {x.device}, pos on {pos.device}, the network on {device}")


def check_lattices(pos: Tensor, grids: Sequence[Grid]) -> None:
    """Check that points fill lattices, row by row.

    Raises:
        ValueError: They do not.
    """
    total = sum(h * w for h, w in grids)
    if total != len(pos):
        raise ValueError(
            f"the lattices {list(grids)} hold {total} points, found {len(pos)}: for some of a "
            "picture's points, give its size as `extent` instead of `grid`"
        )
    parts = pos.float().split([h * w for h, w in grids])
    for grid, part in zip(grids, parts, strict=True):
        near = [
            torch.allclose(
                part,
                lattice_positions(grid, kind, dtype=torch.float32, device=pos.device),
                rtol=0,
                atol=0.2 / max(grid),
            )
            for kind in ("published", "pixel")
        ]
        if not any(near):
            raise ValueError(
                f"the points of the lattice {grid} do not lie row by row in one of the conventions "
                "'published' and 'pixel': for points in another order, give `extent`, not `grid`"
            )


def maps_of(x: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """What the points of lattices hold, laid out picture by picture. [1, C, H, W] each"""
    parts = x.split([h * w for h, w in grids])
    return [
        part.view(1, *grid, -1).permute(0, 3, 1, 2) for grid, part in zip(grids, parts, strict=True)
    ]


def cell_positions(plans: Sequence[LatticePlan], size: Grid, cells: Grid, like: Tensor) -> Tensor:
    r"""Where the squares of a stage's points have their middle, in the picture's positions.

    Args:
        plans: The stages up to this one.
        size: Pixels along each axis.
        cells: The stage's points along each axis.
        like: A tensor of the dtype and device that is wanted.

    Shapes:
        - **output:** $(n, 2)$
    """
    axes = []
    for pixels, count in zip(size, cells, strict=True):
        where = torch.arange(count, device=like.device).to(like.dtype)
        for plan in reversed(plans):
            where = where * plan.stride - plan.padding + (plan.reach - 1) / 2
        axes.append(where.div(max(1, pixels - 1)).clamp(0, 1) - (0.5 if pixels > 1 else 0))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=2).flatten(0, 1)


def packed(pictures: Sequence[tuple[Tensor, Tensor]]) -> Features:
    """Features and positions of the points of several pictures, one after another."""
    x, pos = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    sizes = [len(part) for part, _ in pictures]
    cloud = torch.arange(len(sizes), device=pos.device)
    batch = cloud.repeat_interleave(torch.tensor(sizes, device=pos.device))
    return Features(x, pos, batch, len(sizes), sizes[0] if len(set(sizes)) == 1 else None)


def lattice_clusters(
    block: nn.Module, x: Tensor, images: Tensor, stages: Sequence[LatticeStage]
) -> PointClusters:
    r"""The clusters of a block for every pixel; a pixel goes with the cell that covers it.

    Args:
        block: A block of the last of the stages.
        x: What goes into it, as maps.
        images: The pictures.
        stages: The geometry of the stages up to its own.

    Shapes:
        - **x:** $(B, C, H_s, W_s)$
        - **images:** $(B, C_{in}, H, W)$
    """
    lattice, count, device = stages[-1].clusters, images.size(0), images.device
    _, clusters = block(lattice.from_rows(x.permute(0, 2, 3, 1)), lattice, return_clusters=True)
    # The cell of each pixel, axis by axis.
    axes = [torch.arange(pixels, device=device) for pixels in images.shape[2:]]
    for stage in stages:
        axes = [
            (axis // stage.plan.stride).clamp(max=cells - 1)
            for axis, cells in zip(axes, stage.clusters.grid, strict=True)
        ]
    cell = (axes[0][:, None] * lattice.grid[1] + axes[1]).flatten()  # [H * W], row by row
    # A centre sits in the middle of the pixels that its point stands for.
    places = []
    for axis in axes:
        pixel = torch.arange(len(axis), device=device).to(images.dtype)
        where = scatter(pixel, axis, reduce="mean") / max(1, len(axis) - 1)
        places.append(where - (0.5 if len(axis) > 1 else 0))
    middle = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=2).flatten(0, 1)  # [n, 2]
    if lattice.order is not None:  # where the cells are stored
        cell, middle = lattice.order.argsort()[cell], middle[lattice.order]
    image = torch.arange(count, device=device)
    return seen_from_input(
        clusters,
        (image[:, None] * lattice.num_points + cell).flatten(),
        image.repeat_interleave(len(cell)),
        middle.repeat(count, 1),
        image.repeat_interleave(lattice.num_points),
    )


def joined_clusters(pictures: Sequence[PointClusters]) -> PointClusters:
    """One numbering for the clusters of several pictures, one each."""
    parts, centers, regions = [], 0, 0
    for number, clusters in enumerate(pictures):
        parts.append(
            clusters._replace(
                index=clusters.index + centers,
                region=clusters.region + regions,
                batch=clusters.batch + number,
                center_batch=clusters.center_batch + number,
            )
        )
        centers += len(clusters.center_pos)
        regions += int(clusters.region.max()) + 1
    return PointClusters(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
