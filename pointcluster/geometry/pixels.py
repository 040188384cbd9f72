"""The geometry of pictures of which any points may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.anchors import AnchorGeometry
from pointcluster.geometry.check import cloud_sizes, geometry_dtype
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry
from pointcluster.geometry.lattice import LatticePlan, reduced
from pointcluster.geometry.region import (
    ClusterGeometry,
    canonical_order,
    closed_if_any,
    repeated_centers,
)
from pointcluster.ops.launch import outside_transforms
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import cloud_index, common_size


@outside_transforms
def image_hierarchy(
    pos: Tensor,
    extents: Sequence[tuple[int, int]],
    plans: Sequence[LatticePlan],
    batch: Tensor | None = None,
) -> Hierarchy:
    r"""Work out all stages of an image network for loose points of pictures.

    The points may be all pixels in any order, some of them, or lie between them (the centroids of
    superpixels). Each picture keeps its own lattice: an anchor stands for every cell that holds a
    point, and gathers for each place of its square the point at that place or, where none is, the
    nearest one of the picture. Places over the border hold the index `num_points`, which stands
    for zeros. A centre's grouping is what its window holds, or else the nearest point of its
    region; regions without points are left out. With all pixels this is the lattice's geometry.

    Args:
        pos: Positions from -0.5 to 0.5 along both axes, in either convention of
            :func:`lattice_positions`.
        extents: Size in pixels (H, W) of each picture.
        plans: What to build, stage by stage.
        batch: Sorted picture index of each point.

    Shapes:
        - **pos:** $(N, 2)$

    Raises:
        TypeError, ValueError: The point set is malformed, a picture has no points, or a position
            lies outside.
    """
    sizes = cloud_sizes(pos, batch, len(extents))
    if pos.size(1) != 2:
        raise ValueError(f"pixels have positions [N, 2], found {list(pos.shape)}")
    if 0 in sizes:
        raise ValueError(f"picture {sizes.index(0)} has no points: keep at least one")
    given = pos.detach(), cloud_index(sizes, pos.device)
    pos = geometry_dtype(pos.detach())
    if bool((pos.abs() > 0.5 + 1e-4).any()):
        raise ValueError("positions of pixels lie between -0.5 and 0.5 along both axes")
    device = pos.device
    extent = torch.tensor([list(each) for each in extents], device=device)  # [B, 2]
    image = cloud_index(sizes, device)
    last = (extent - 1).clamp(min=1).to(pos.dtype)
    # In pixels. One formula for both conventions: they differ by less than half a pixel.
    where = (pos + 0.5) * last[image]
    where = torch.where(extent[image] > 1, where, torch.zeros_like(where))
    # Of equally near points the first counts: an order that does not depend on the caller's.
    canonical = canonical_order(pos, sizes)
    where = where[canonical]
    cell = where.round().long()
    grids = [tuple(each) for each in extents]
    stages: list[StageGeometry] = []
    for plan in plans:
        after = [tuple(reduced(size, plan) for size in grid) for grid in grids]
        stage, cell, image, sizes = _stage(where, cell, image, sizes, grids, after, plan)
        anchors = stage.anchors
        if not stages:  # the first stage's indices count the input's points
            back = torch.cat([canonical, canonical.new_tensor([len(canonical)])])
            anchors = anchors._replace(anchor=back[anchors.anchor], grouping=back[anchors.grouping])
        middle = _middles(len(stages), cell, plans)
        place = torch.where(last[image] > 1, middle / last[image], torch.full_like(middle, 0.5))
        stages.append(stage._replace(anchors=anchors._replace(pos=place.clamp(0, 1) - 0.5)))
        where, grids = cell.to(pos.dtype), after
    return Hierarchy(tuple(stages), len(sizes), tuple(plans), *given)


def picture_sizes(name: str, value: Any) -> list[tuple[int, int]]:
    """Sizes of pictures (H, W), from one tuple, a list of them, or a tensor.

    Raises:
        ValueError: It is none of these, or a size is not positive.
    """
    if isinstance(value, Tensor):
        value = value.view(-1, 2).tolist()
    elif value is not None and len(value) == 2 and not isinstance(value[0], (tuple, list, Tensor)):
        value = [value]
    try:
        sizes = [(int(h), int(w)) for h, w in value]
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be (H, W), or a list of them, found {value!r}") from None
    if any(min(each) < 1 for each in sizes):
        raise ValueError(f"{name} must be positive, found {sizes}")
    return sizes


def _middles(stage: int, cell: Tensor, plans: Sequence[LatticePlan]) -> Tensor:
    """Where the squares of a stage's cells have their middle, in pixels of the picture."""
    where = cell.float()
    for plan in reversed(plans[: stage + 1]):
        where = where * plan.stride - plan.padding + (plan.reach - 1) / 2
    return where


def _stage(
    where: Tensor,
    cell: Tensor,
    image: Tensor,
    sizes: Sequence[int],
    before: Sequence[tuple[int, ...]],
    after: Sequence[tuple[int, ...]],
    plan: LatticePlan,
) -> tuple[StageGeometry, Tensor, Tensor, list[int]]:
    """Reduce points at `where`, in `cell`, and find the clusters of what is left."""
    device, n, batch_size = cell.device, len(cell), len(sizes)
    old = torch.tensor(before, device=device)
    new = torch.tensor(after, device=device)
    goal = torch.minimum(cell // plan.stride, new[image] - 1)
    # Anchors in their storage order: picture, region, row, column.
    parts = new.clamp(max=plan.fold)
    region = ((goal + 1) * parts[image] - 1) // new[image]  # the i with bounds[i] <= goal
    keys = [image, region[:, 0], region[:, 1], goal[:, 0], goal[:, 1]]
    rows = torch.stack(keys, dim=1).unique(dim=0)  # sorted, column after column
    image, region, goal = rows[:, 0], rows[:, 1:3], rows[:, 3:5]
    counts = torch.bincount(image, minlength=batch_size)
    # Which point lies in which cell before: the first one of several.
    starts = torch.zeros(batch_size, dtype=torch.int64, device=device)
    starts[1:] = (old[:, 0] * old[:, 1]).cumsum(0)[:-1]
    table = torch.full((int((old[:, 0] * old[:, 1]).sum()),), n, device=device)
    cloud = cloud_index(sizes, device)
    address = starts[cloud] + cell[:, 0] * old[cloud, 1] + cell[:, 1]
    table.scatter_reduce_(0, address, torch.arange(n, device=device), "amin")
    step = torch.arange(plan.kernel, device=device) * plan.dilation
    offset = torch.cartesian_prod(step, step).view(-1, 2) - plan.padding  # [k, 2]
    target = goal[:, None] * plan.stride + offset  # [M, k, 2]
    inside = ((target >= 0) & (target < old[image][:, None])).all(dim=2)
    wide = old[image][:, None, 1]
    address = starts[image][:, None] + target[..., 0] * wide + target[..., 1]
    grouping = torch.where(inside, table[address.where(inside, 0)], n)  # [M, k]
    missing = (inside & (grouping == n)).nonzero()
    if len(missing):
        slot, asked = missing.unbind(1)
        per_image = torch.bincount(image[slot], minlength=batch_size).tolist()
        nearest = ops.knn(where, target[slot, asked].to(where.dtype), 1, sizes, per_image)
        grouping[slot, asked] = nearest[:, 0]
    m = len(goal)
    cells_per_image = counts.tolist()
    anchors = AnchorGeometry(
        anchor=grouping.where(grouping < n, n).amin(dim=1),
        grouping=grouping,
        relative=torch.zeros(m, plan.kernel**2, 0, dtype=where.dtype, device=device),
        radius=torch.ones(batch_size, dtype=where.dtype, device=device),
        pos=goal.to(where.dtype),
        batch=image,
        num_points=n,
        batch_size=batch_size,
        cloud_size=common_size(cells_per_image),
        outside=bool((grouping == n).any()),
    )
    clusters = _clusters(goal, region, parts[image], new[image], image, batch_size, plan.centers)
    clusters = clusters._replace(cloud_size=common_size(cells_per_image))
    return (
        StageGeometry(anchors, clusters),
        goal,
        image,
        cells_per_image,
    )


def _clusters(
    cell: Tensor,
    region: Tensor,
    parts: Tensor,
    grid: Tensor,
    image: Tensor,
    batch_size: int,
    centers: int,
) -> ClusterGeometry:
    """Regions and groupings of stored points by their cells: what each window holds."""
    device = cell.device
    number = torch.unique_consecutive(
        torch.cat([image[:, None], region], dim=1), dim=0, return_inverse=True
    )[1]
    num_regions = int(number[-1]) + 1
    first = torch.bincount(number, minlength=num_regions).cumsum(0).roll(1)
    first[0] = 0
    top = region * grid // parts  # where the point's region begins [n, 2]
    size = (region + 1) * grid // parts - top
    local = cell - top
    groups, used, middles = [], [], []
    for i in range(centers):
        for j in range(centers):
            at = torch.tensor([i, j], device=device)
            low, high = at * size // centers, -(-(at + 1) * size // centers)
            within = ((local >= low) & (local < high)).all(dim=1)
            rank = within.long().cumsum(0)
            rank = rank - (rank[first] - within[first].long())[number] - 1
            count = torch.zeros(num_regions, dtype=torch.int64, device=device)
            count.scatter_add_(0, number, within.long())
            middle = (local - (low + high - 1) / 2).square().sum(dim=1)
            by = middle.sort(stable=True).indices
            by = by[number[by].sort(stable=True).indices]
            nearest = by[first]
            group = nearest[:, None].repeat(1, int(count.max().clamp(min=1)))
            members = within.nonzero()[:, 0]
            group[number[members], rank[members]] = members
            groups.append(group)
            used.append(count.clamp(min=1))
            middles.append(nearest)
    k = max(group.size(1) for group in groups)
    groups = [torch.cat([g, g[:, :1].expand(-1, k - g.size(1))], dim=1) for g in groups]
    group, count = torch.stack(groups, dim=1), torch.stack(used, dim=1)  # [R, M, k], [R, M]
    holds = torch.arange(k, device=device) < count[..., None]
    group = group.where(holds, group[..., :1])  # whatever other pictures hold
    ptr = torch.cat([first, first.new_tensor([len(cell)])])
    group = group - first[:, None, None]
    closed = closed_if_any(repeated_centers(group, count))
    return ClusterGeometry(
        order=None,
        regions=Regions(group, count, closed, None, ptr, number),
        center=torch.stack(middles, dim=1).flatten(),
        batch=image,
        batch_size=batch_size,
        cloud_size=None,
    )
