"""Regions of a point set, and the geometry that one context cluster works on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import sample
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import (
    alike,
    cloud_index,
    common_size,
    of_like_size,
    on_device,
    on_host,
    padded_rows,
    pointers,
    slices,
    starts_of,
    take,
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


def region_levels(size: int, region_size: int | None) -> int:
    """How often a cloud of `size` points is halved so that no region exceeds `region_size`."""
    if region_size is None or size <= region_size:
        return 0
    return (-(-size // region_size) - 1).bit_length()


def halved(size: int, levels: int) -> list[int]:
    """Points of the parts of a cloud that is halved so often."""
    parts = [size]
    for _ in range(levels):
        parts = [part for n in parts for part in ((n + 1) // 2, n // 2)]
    return parts


def stable_order(key: Tensor) -> Tensor:
    """The stable order of each row [S, W], rising.

    Float32 on the CPU is sorted as integers that hold the value above the column: several times as
    fast as a stable sort, and all are different, so that any sort is stable.
    """
    if key.dtype != torch.float32 or not on_host(key):
        return key.sort(dim=1, stable=True).indices
    bits = (key.numpy() + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32 | np.arange(key.size(1))
    bits.sort(axis=1)
    return torch.from_numpy(bits & 0xFFFFFFFF)


def canonical_order(pos: Tensor, sizes: Sequence[int]) -> Tensor:
    """Order each cloud's points by their coordinates, first axis first.

    What is built on points in this order, ties decided by the lower index, does not depend on the
    order they came in (but for which of several coincident points is which).

    Shapes:
        - **pos:** $(N, D)$
        - **output:** $(N)$, packed indices, cloud by cloud
    """
    parts = [torch.empty(0, dtype=torch.int64, device=pos.device)] * len(sizes)
    for clouds in of_like_size(sizes):
        slots, count = padded_rows(sizes, clouds, pos.device)
        points = take(pos, slots)  # [S, W, D]
        if not alike([sizes[c] for c in clouds]):  # what fills up a row comes last
            pad = torch.arange(slots.size(1), device=pos.device) >= count[:, None]
            points.masked_fill_(pad[..., None], torch.inf)
        slots = slots.gather(1, lexicographic_order(points))
        if alike(sizes):
            return slots.view(-1)
        for row, c in zip(slots, clouds, strict=True):
            parts[c] = row[: sizes[c]]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=pos.device)


def lexicographic_order(points: Tensor) -> Tensor:
    """The stable order of each row's points [S, W, D] by their coordinates, first axis first."""
    if on_host(points):  # which can be asked whether the first axis is enough
        by = stable_order(points[..., 0])
        key = points[..., 0].gather(1, by)
        if not bool(((key[:, 1:] == key[:, :-1]) & (key[:, 1:] < torch.inf)).any()):
            return by
    by = stable_order(points[..., -1])
    for axis in reversed(range(points.size(2) - 1)):
        by = by.gather(1, stable_order(points[..., axis].gather(1, by)))
    return by


class Parts(NamedTuple):
    """Parts of clouds as the rows of a matrix; a short one repeats its last point."""

    slots: Tensor
    """Packed indices. [S, W]"""
    counts: list[int]
    """Points of each row."""
    clouds: list[int]
    """The clouds whose parts these are, one's after the other's."""


def partition(
    pos: Tensor, sizes: Sequence[int], levels: Sequence[int]
) -> tuple[Tensor, list[list[int]]]:
    r"""Cut clouds into regions: each is halved so often, at the median of its parts' longest axis.

    The regions of a cloud are boxes whose numbers of points differ by one at most. A tie at the
    median goes by the points' order. This is a KD-tree's construction for all clouds at once (those
    to be halved most begin, the others join them) and costs $O(N \log N)$ a level.

    Args:
        pos: Positions of the points.
        sizes: Points of each cloud.
        levels: How often each is halved, as :func:`region_levels` says.

    Shapes:
        - **pos:** $(N, D)$

    Returns:
        The points' packed indices region by region, and the regions' sizes for each cloud. A cloud
        without points has no regions.
    """
    parts: list[Parts] = []
    for level in range(max(levels, default=0), 0, -1):
        new = [n if at == level else 0 for n, at in zip(sizes, levels, strict=True)]
        for clouds in of_like_size(new):
            slots, _ = padded_rows(sizes, clouds, pos.device)
            parts.append(Parts(slots, [sizes[c] for c in clouds], clouds))
        parts = [halve(pos, each) for each in joined(parts)]
    regions = [halved(n, at) if n else [] for n, at in zip(sizes, levels, strict=True)]
    # In one line of all rows, and of the clouds that are not cut: where does each region begin?
    line, begins, end = [], [0] * len(sizes), 0
    wide = [0] * len(sizes)
    for slots, _, clouds in parts:
        line.append(slots.view(-1))
        for c in clouds:
            begins[c], wide[c] = end, slots.size(1)
            end += len(regions[c]) * wide[c]
    whole = [c for c, of_cloud in enumerate(regions) if len(of_cloud) == 1]
    if whole:
        starts = starts_of(sizes)
        first, last = starts[whole[0]], starts[whole[-1] + 1]
        line.append(torch.arange(first, last, device=pos.device))
        for c in whole:
            begins[c] = end + starts[c] - first
    places = [begins[c] + i * wide[c] for c, parts in enumerate(regions) for i in range(len(parts))]
    if not line:
        return torch.empty(0, dtype=torch.int64, device=pos.device), regions
    return slices(torch.cat(line), places, [n for of_cloud in regions for n in of_cloud]), regions


def joined(parts: Sequence[Parts]) -> Iterator[Parts]:
    """Parts of like width as the rows of one matrix: that at most doubles them."""
    like: dict[int, list[Parts]] = {}
    for each in parts:
        like.setdefault((each.slots.size(1) - 1).bit_length(), []).append(each)
    for group in like.values():
        width = max(each.slots.size(1) for each in group)
        rows = [
            torch.cat([slots, slots[:, -1:].expand(-1, width - slots.size(1))], dim=1)
            if slots.size(1) < width
            else slots
            for slots, _, _ in group
        ]
        counts = [n for each in group for n in each.counts]
        clouds = [c for each in group for c in each.clouds]
        yield Parts(torch.cat(rows), counts, clouds)


def halve(pos: Tensor, parts: Parts) -> Parts:
    """Halve each part at the median of its longest axis."""
    slots, counts, clouds = parts
    halves = [half for n in counts for half in ((n + 1) // 2, n // 2)]
    width = slots.size(1)
    points = take(pos, slots)  # [S, W, D]; what fills a row up is a copy of a point of it
    axis = (points.amax(dim=1) - points.amin(dim=1)).argmax(dim=1)
    key = points.gather(2, axis[:, None, None].expand(-1, width, 1)).squeeze(2)
    if alike(halves) and 2 * halves[0] == width:  # nothing is filled up
        return Parts(slots.gather(1, stable_order(key)).view(len(halves), -1), halves, clouds)
    half = on_device(halves, pos.device).view(-1, 2)
    end, column = half.cumsum(dim=1), torch.arange(width, device=pos.device)  # [S, 2], [W]
    key = key.masked_fill(column >= end[:, 1:], torch.inf)
    slots = slots.gather(1, stable_order(key))
    place = (end - half)[..., None] + column[: (width + 1) // 2]  # [S, 2, (W + 1) / 2]
    place = torch.minimum(place, end[..., None] - 1)
    return Parts(slots.gather(1, place.flatten(1)).view(len(halves), -1), halves, clouds)


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
