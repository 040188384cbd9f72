"""The geometry of pictures of which any points may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.anchors import AnchorGeometry
from pointcluster.geometry.check import cloud_sizes, geometry_dtype
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry
from pointcluster.geometry.lattice import LatticePlan, reduced
from pointcluster.geometry.partition import canonical_order
from pointcluster.geometry.region import ClusterGeometry, closed_if_any, repeated_centers
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
    image = cloud_index(sizes, pos.device)
    extent = torch.tensor([list(each) for each in extents], device=pos.device)[image]  # [N, 2]
    # In pixels. One formula for both conventions: they differ by less than half a pixel.
    where = (pos + 0.5) * (extent - 1).clamp(min=1).to(pos.dtype)
    where = torch.where(extent > 1, where, torch.zeros_like(where))
    # Of equally near points the first counts: an order that does not depend on the caller's.
    canonical = canonical_order(pos, sizes)
    where = where[canonical]
    points = _Points(where, where.round().long(), image, sizes, [(h, w) for h, w in extents])
    stages: list[StageGeometry] = []
    for number, plan in enumerate(plans):
        anchors, points = _reduced(points, plan)
        if not stages:  # the first stage's indices count the input's points
            back = torch.cat([canonical, canonical.new_tensor([len(canonical)])])
            anchors = anchors._replace(anchor=back[anchors.anchor], grouping=back[anchors.grouping])
        # An anchor is in the middle of its square of the input.
        middle = points.cell.float()
        for before in reversed(plans[: number + 1]):
            middle = middle * before.stride - before.padding + (before.reach - 1) / 2
        extent = torch.tensor([list(each) for each in extents], device=pos.device)[points.image]
        last = (extent - 1).clamp(min=1).to(pos.dtype)
        place = torch.where(last > 1, middle / last, torch.full_like(middle, 0.5)).clamp(0, 1) - 0.5
        stages.append(StageGeometry(anchors._replace(pos=place), _clusters(points, plan)))
    return Hierarchy(tuple(stages), len(sizes), tuple(plans), *given)


class _Points(NamedTuple):
    """Points of pictures, and the cells of their lattices that they lie in."""

    where: Tensor
    """Positions, in cells. [n, 2]"""
    cell: Tensor
    """Row and column of the cell. [n, 2]"""
    image: Tensor
    """Picture of each point. [n]"""
    sizes: list[int]
    """Points of each picture."""
    grids: list[tuple[int, int]]
    """Cells along both axes of each picture."""

    @property
    def grid(self) -> Tensor:
        """Cells along both axes. [B, 2]"""
        return torch.tensor(self.grids, device=self.cell.device)

    def regions(self, fold: int) -> tuple[Tensor, Tensor]:
        """Row and column of each point's region, and the regions of its picture. [n, 2]"""
        grid = self.grid[self.image]
        parts = grid.clamp(max=fold)
        return ((self.cell + 1) * parts - 1) // grid, parts  # the i with bounds[i] <= cell


def _reduced(points: _Points, plan: LatticePlan) -> tuple[AnchorGeometry, _Points]:
    """An anchor for each cell of the lattice after that a point falls into, region by region, and
    what it gathers: the point in each place of its square, or the nearest one where none is."""
    device, n, batch_size = points.cell.device, len(points.cell), len(points.sizes)
    before = points.grid
    grids = [(reduced(h, plan), reduced(w, plan)) for h, w in points.grids]
    after = torch.tensor(grids, device=device)[points.image]
    # Cells in their storage order: picture, region, row, column.
    goal = torch.minimum(points.cell // plan.stride, after - 1)
    region, _ = points._replace(cell=goal, grids=grids).regions(plan.fold)
    rows = torch.cat([points.image[:, None], region, goal], dim=1).unique(dim=0)
    image, goal = rows[:, 0], rows[:, 3:]
    counts = torch.bincount(image, minlength=batch_size).tolist()
    # Which point lies in which cell before: the first one of several.
    area = before.prod(dim=1)
    starts = area.cumsum(0) - area

    def address(image: Tensor, cell: Tensor) -> Tensor:
        return starts[image] + cell[..., 0] * before[image, 1] + cell[..., 1]

    table = torch.full((int(area.sum()),), n, device=device)
    lies = address(points.image, points.cell)
    table.scatter_reduce_(0, lies, torch.arange(n, device=device), "amin")
    step = torch.arange(plan.kernel, device=device) * plan.dilation
    square = goal[:, None] * plan.stride + torch.cartesian_prod(step, step).view(-1, 2)
    square = square - plan.padding  # [M, k, 2]
    within = ((square >= 0) & (square < before[image][:, None])).all(dim=2)
    places = address(image[:, None].expand(-1, square.size(1)), square).where(within, 0)
    grouping = torch.where(within, table[places], n)
    anchor, slot = (within & (grouping == n)).nonzero(as_tuple=True)
    if len(anchor):
        asked = torch.bincount(image[anchor], minlength=batch_size).tolist()
        query = square[anchor, slot].to(points.where.dtype)
        grouping[anchor, slot] = ops.knn(points.where, query, 1, points.sizes, asked)[:, 0]
    where = goal.to(points.where.dtype)
    anchors = AnchorGeometry(
        anchor=grouping.amin(dim=1),
        grouping=grouping,
        relative=where.new_zeros(len(goal), plan.kernel**2, 0),
        radius=where.new_ones(batch_size),
        pos=where,
        batch=image,
        num_points=n,
        batch_size=batch_size,
        cloud_size=common_size(counts),
        outside=bool((grouping == n).any()),
    )
    return anchors, _Points(where, goal, image, counts, grids)


def _clusters(points: _Points, plan: LatticePlan) -> ClusterGeometry:
    """Regions of points that are stored region by region, and what each window of them holds."""
    cell, device = points.cell, points.cell.device
    region, parts = points.regions(plan.fold)
    of = torch.cat([points.image[:, None], region], dim=1)
    number = torch.unique_consecutive(of, dim=0, return_inverse=True)[1]  # [n]
    size = torch.bincount(number)
    first = size.cumsum(0) - size  # [R]
    grid = points.grid[points.image]
    top = region * grid // parts  # where the point's region begins
    side, local = (region + 1) * grid // parts - top, cell - top
    at = torch.arange(plan.centers, device=device)
    at = torch.cartesian_prod(at, at).view(-1, 1, 2)  # the windows [M, 1, 2]
    low, high = at * side // plan.centers, -(-(at + 1) * side // plan.centers)  # [M, n, 2]
    within = ((local >= low) & (local < high)).all(dim=2)  # [M, n]
    # Region by region, those within the window first; and those nearest to its middle.
    inside = (2 * number + ~within).sort(dim=1, stable=True).indices
    near = (local - (low + high - 1) / 2).square().sum(dim=2).sort(dim=1, stable=True).indices
    near = near.gather(1, number[near].sort(dim=1, stable=True).indices)[:, first]  # [M, R]
    count = torch.zeros(len(at), len(size), dtype=torch.int64, device=device)
    count.scatter_add_(1, number.expand_as(within), within.long())
    slot = torch.arange(int(count.max().clamp(min=1)), device=device)
    slot = slot.where(slot < count[..., None], 0)  # [M, R, k]: what is left repeats the first
    group = inside.gather(1, (first[:, None] + slot).flatten(1)).view(slot.shape)
    group = group.where(count[..., None] > 0, near[..., None])
    group = (group - first[:, None]).transpose(0, 1).contiguous()  # [R, M, k]
    filled = count.clamp(min=1).t().contiguous()
    return ClusterGeometry(
        order=None,
        regions=Regions(
            group=group,
            filled=filled,
            closed=closed_if_any(repeated_centers(group, filled)),
            ptr=torch.cat([first, first.new_tensor([len(cell)])]),
            of=number,
        ),
        center=near.t().flatten(),
        batch=points.image,
        batch_size=len(points.sizes),
        cloud_size=common_size(points.sizes),
    )


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
