"""Regions of a point set, and the geometry that one context cluster works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import sample
from pointcluster.geometry.partition import canonical_order, partition, region_levels
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import (
    cloud_index,
    common_size,
    on_device,
    on_host,
    pointers,
)
from pointcluster.ops.search.threads import searching


class ClusterGeometry(NamedTuple):
    r"""Where points are clustered: regions, centres and what the centres are the mean of.

    Points are *stored* region by region, so that each region is a slice. Centre $m$ of region $r$
    has the number $r M + m$. A region with fewer points than centres repeats its centres; a
    repeated one never takes a point: the first of equals does.
    """

    order: Tensor | None
    """`order[i]` is the caller's index of the point stored at place `i`; `None`: as given. [N]"""
    regions: Regions
    """The regions of the stored points, and their centres' groupings, nearest first."""
    center: Tensor
    """Place of the point each centre sits on. [R * M]"""
    batch: Tensor
    """Cloud of each stored point. [N]"""
    batch_size: int
    """Number of clouds B, empty ones included."""
    cloud_size: int | None
    """Points a cloud where all have the same number."""


@searching
def cluster_geometry(
    pos: Tensor,
    batch: Tensor | None = None,
    *,
    num_centers: int,
    k: int,
    region_size: int | None = None,
    centers: str | Tensor = "fps",
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> ClusterGeometry:
    r"""Work out regions, centres and groupings for one set of points.

    Regions are boxes with equally many points (`region_size` or fewer; sizes inside a cloud differ
    by one at most), found by halving a cloud at the median of its longest axis; `None` makes each
    cloud one region. In each region, `num_centers` centres sit on points chosen evenly, and each
    one's grouping is the `k` nearest points of its region. A region with fewer points has them all,
    once, in each grouping. Nothing depends on the order of the points, but for coincident ones.

    Args:
        pos: Positions of the points.
        batch: Sorted cloud index of each point.
        num_centers: Centres a region.
        k: Points a grouping.
        region_size: Most points a region.
        centers: `"fps"`, `"random"`, or the points to sit on: `num_centers` indices a cloud, for
            `region_size=None`.
        batch_size: Number of clouds, when the last ones may be empty.
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
        generator: Source of randomness for `centers="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$
        - **centers:** $(B \cdot M)$ when given

    Raises:
        TypeError, ValueError: The point set is malformed, a number is not positive, or the given
            centres do not fit.
    """
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    for name, value in [("num_centers", num_centers), ("k", k)]:
        check_positive(name, value)
    if region_size is not None:
        check_positive("region_size", region_size)
    pos = geometry_dtype(pos.detach())
    order = canonical_order(pos, sizes)
    levels = [region_levels(n, region_size) for n in sizes]
    by_region, regions = partition(pos[order], sizes, levels)
    order = order[by_region]
    if isinstance(centers, Tensor):
        _check_centers(centers, sizes, num_centers, region_size)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        centers = place[centers]
    (geometry,) = stored_geometries(
        pos[order],
        [regions],
        [cloud_index(sizes, pos.device)],
        num_centers=num_centers,
        k=k,
        centers=centers,
        generator=generator,
        backend=backend,
    )
    return geometry._replace(order=order)


def _check_centers(
    centers: Tensor, sizes: Sequence[int], num_centers: int, region_size: int | None
) -> None:
    if region_size is not None:
        raise ValueError(
            "centres can be given only where each cloud is one region: region_size=None"
        )
    expected = num_centers * sum(n > 0 for n in sizes)
    if centers.dtype != torch.int64 or centers.shape != (expected,):
        raise ValueError(
            f"centers must be {expected} int64 indices ({num_centers} for each cloud with points), "
            f"found {list(centers.shape)} {centers.dtype}"
        )
    starts = pointers([n for n in sizes if n], centers.device)
    rows = centers.view(-1, num_centers)
    if bool(((rows < starts[:-1, None]) | (rows >= starts[1:, None])).any()):
        raise ValueError("centers must list, cloud by cloud, indices of that cloud's own points")


def stored_geometries(
    pos: Tensor,
    regions: Sequence[Sequence[Sequence[int]]],
    batches: Sequence[Tensor],
    *,
    num_centers: int,
    k: int,
    centers: str | Tensor = "fps",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> list[ClusterGeometry]:
    """Centres and groupings of points that are stored region by region, for stages at once.

    The arguments are trusted.

    Args:
        pos: Positions of the points, stage after stage.
        regions: Points of each region, for each cloud of each stage.
        batches: Cloud of each point, for each stage.
        num_centers: Centres a region.
        k: Points a grouping.
        centers: `"fps"`, `"random"`, or the places of points to sit on.
        generator: Source of randomness for `centers="random"`.
        backend: As in :func:`cluster_geometry`.

    Shapes:
        - **pos:** $(N, D)$
    """
    device = pos.device
    of_stage = [[n for of_cloud in stage for n in of_cloud] for stage in regions]
    sizes = [n for stage in of_stage for n in stage]  # of all regions
    ptr, of = pointers(sizes, device), cloud_index(sizes, device)
    center = (
        centers
        if isinstance(centers, Tensor)
        else _centers(pos, sizes, num_centers, centers, generator, backend)
    )
    grouping = ops.knn(pos, pos[center], k, sizes, [num_centers] * len(sizes), backend=backend)
    group = grouping.view(-1, num_centers, k) - ptr[:-1, None, None]
    filled = on_device([min(n, k) for n in sizes], device)[:, None].repeat(1, num_centers)
    closed = repeated_centers(group, filled)
    whole = Regions(group, filled, size=common_size(sizes))
    pool = whole.pooling(pos.dtype) if whole.size else None
    stages, point, row = [], 0, 0
    for clouds, inside, batch in zip(regions, of_stage, batches, strict=True):
        rows, points = slice(row, row + len(inside)), slice(point, point + len(batch))
        stored = Regions(
            group=group[rows],
            filled=filled[rows],
            closed=closed_if_any(closed[rows]),
            size=common_size(inside),
            ptr=ptr[row : row + len(inside) + 1] - point,
            of=of[points] - row,
            pool=None if pool is None else pool[rows],
            most=max(inside, default=None),
        )
        if stored.size and pool is None:
            stored = stored._replace(pool=stored.pooling(pos.dtype))
        in_cloud = [sum(of_cloud) for of_cloud in clouds]
        first = row * num_centers
        stages.append(
            ClusterGeometry(
                order=None,
                regions=stored,
                center=center[first : first + len(inside) * num_centers] - point,
                batch=batch,
                batch_size=len(clouds),
                cloud_size=common_size(in_cloud),
            )
        )
        row, point = rows.stop, points.stop
    return stages


def _centers(
    pos: Tensor,
    sizes: Sequence[int],
    num: int,
    how: str,
    generator: torch.Generator | None,
    backend: str,
) -> Tensor:
    """The places of so many centres of each region; of fewer points they are repeated. [R * M]"""
    device = pos.device
    if how == "fps":
        nums = [min(num, n) for n in sizes]
        picks = sample(pos, nums, sizes, backend=backend)
        if min(nums, default=num) == num:
            return picks
        column = torch.arange(num, device=device) % on_device(nums, device)[:, None]
        return picks[pointers(nums, device)[:-1, None] + column].view(-1)
    if how == "random":  # the first of a random order
        of = cloud_index(sizes, device)
        shuffled = torch.rand(len(pos), generator=generator).to(device).sort(stable=True).indices
        shuffled = shuffled[of[shuffled].sort(stable=True).indices]
        column = torch.arange(num, device=device) % on_device(sizes, device)[:, None]
        return shuffled[pointers(sizes, device)[:-1, None] + column].view(-1)
    raise ValueError(f"centers must be 'fps', 'random' or a tensor, found {how!r}")


def repeated_centers(group: Tensor, filled: Tensor) -> Tensor:
    """Centres whose points are those of an earlier one in any order: equal but for rounding, which
    must not choose between them. [R, M]"""
    slot = torch.arange(group.size(2), device=group.device)
    points = group.masked_fill(slot >= filled[..., None], -1).sort(dim=2).values
    same = (points[:, :, None] == points[:, None]).all(dim=3)  # [R, M, M]
    return same.tril(-1).any(dim=2)


def closed_if_any(repeated: Tensor) -> Tensor | None:
    """The same, or `None` where there are none and a CPU was asked."""
    return repeated if not on_host(repeated) or bool(repeated.any()) else None
