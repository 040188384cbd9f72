"""Regions of a point set, and the geometry that one context cluster works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import sample
from pointcluster.ops.launch import outside_transforms
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import (
    alike,
    cloud_index,
    common_size,
    of_like_size,
    on_device,
    padded_rows,
    pointers,
    starts_of,
    take,
)
from pointcluster.ops.search.threads import threads_for_searches


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


def stable_order(key: Tensor) -> Tensor:
    """The stable order of each row [S, W], rising.

    Float32 on the CPU is sorted as integers that hold the value above the column: several times as
    fast as a stable sort, and all are different, so that any sort is stable.
    """
    if key.dtype != torch.float32 or key.device.type != "cpu":
        return key.sort(dim=1, stable=True).indices
    bits = (key.numpy() + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32 | np.arange(key.size(1))
    bits.sort(axis=1)
    return torch.from_numpy(bits & 0xFFFFFFFF)


def halved(size: int, levels: int) -> list[int]:
    """Points of the parts of a cloud that is halved so often."""
    parts = [size]
    for _ in range(levels):
        parts = [part for n in parts for part in ((n + 1) // 2, n // 2)]
    return parts


def split_evenly(pos: Tensor, sizes: Sequence[int], levels: int) -> tuple[Tensor, Tensor]:
    r"""Halve clouds `levels` times, each part at the median of its longest axis.

    The parts of a cloud are boxes whose numbers of points differ by one at most. A tie at the
    median goes by the points' order. This is a KD-tree's construction for all clouds at once; it
    costs $O(N \log N)$ a level.

    Shapes:
        - **pos:** $(N, D)$, clouds of at least $2^{levels}$ points
        - **output:** $(R, W)$ packed indices, short parts padded with their last point, and $(R)$
          the numbers of points; $R = B \cdot 2^{levels}$
    """
    slots, count = padded_rows(sizes, range(len(sizes)), pos.device)
    even = alike(sizes) and sizes[0] % (1 << levels) == 0
    for _ in range(levels):
        points = take(pos, slots)  # [S, W, D]; a pad is a copy of a point of its row
        axis = (points.amax(dim=1) - points.amin(dim=1)).argmax(dim=1)
        key = points.gather(2, axis[:, None, None].expand(-1, slots.size(1), 1)).squeeze(2)
        if even:  # nothing is padded
            slots = slots.gather(1, stable_order(key)).view(2 * len(slots), -1)
            continue
        column = torch.arange(slots.size(1), device=pos.device)
        key = key.masked_fill(column >= count[:, None], torch.inf)
        slots = slots.gather(1, stable_order(key))
        left = (count + 1) // 2
        column = column[: (slots.size(1) + 1) // 2]
        parts = [
            torch.minimum(column, left[:, None] - 1),
            torch.minimum(left[:, None] + column, count[:, None] - 1),
        ]
        slots = torch.stack([slots.gather(1, part) for part in parts], dim=1).flatten(0, 1)
        count = torch.stack([left, count - left], dim=1).flatten()
    if even:
        count = torch.full((len(slots),), slots.size(1), device=pos.device)
    return slots, count


def canonical_order(pos: Tensor, sizes: Sequence[int]) -> Tensor:
    """Order each cloud's points by their coordinates, first axis first.

    What is built on points in this order, ties decided by the lower index, does not depend on the
    order they came in (but for which of several coincident points is which).

    Shapes:
        - **pos:** $(N, D)$
        - **output:** $(N)$, packed indices, cloud by cloud
    """
    parts: list[Tensor | None] = [None] * len(sizes)
    for clouds in of_like_size(sizes):
        slots, count = padded_rows(sizes, clouds, pos.device)
        pad = torch.arange(slots.size(1), device=pos.device) >= count[:, None]
        key = pos[:, 0].take(slots).masked_fill(pad, torch.inf)
        by = stable_order(key)
        key = key.gather(1, by)
        tied = (key[:, 1:] == key[:, :-1]) & ~pad[:, 1:]
        if pos.device.type != "cpu" or bool(tied.any()):  # other devices are not waited for
            by = torch.arange(slots.size(1), device=pos.device).expand_as(slots)
            for axis in reversed(range(pos.size(1))):
                key = pos[:, axis].take(slots.gather(1, by)).masked_fill(pad, torch.inf)
                by = by.gather(1, stable_order(key))
        slots = slots.gather(1, by)
        if len(clouds) == len(sizes) and len(set(sizes)) == 1:
            return slots.view(-1)
        for row, c in zip(slots, clouds, strict=True):
            parts[c] = row[: sizes[c]]
    kept = [part for part in parts if part is not None]
    return torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64, device=pos.device)


def partition(
    pos: Tensor, sizes: Sequence[int], region_size: int | None
) -> tuple[Tensor, list[list[int]]]:
    """Cut clouds into regions of at most `region_size` points, halving them at the median.

    Returns:
        The points' packed indices region by region, and the regions' sizes for each cloud. A cloud
        without points has no regions.
    """
    levels = [region_levels(n, region_size) for n in sizes]
    parts: list[Tensor | None] = [None] * len(sizes)
    region_sizes: list[list[int]] = [[] for _ in sizes]
    starts = starts_of(sizes)
    for level in sorted(set(levels)):
        for clouds in of_like_size(
            [n if at == level else 0 for n, at in zip(sizes, levels, strict=True)]
        ):
            whole = len(clouds) == len(sizes)
            if whole:
                inside, back = pos, None
            else:
                back = torch.cat(
                    [torch.arange(starts[c], starts[c + 1], device=pos.device) for c in clouds]
                )
                inside = pos[back]
            slots, _ = split_evenly(inside, [sizes[c] for c in clouds], level)
            for c in clouds:
                region_sizes[c] = halved(sizes[c], level)
            regions = [n for c in clouds for n in region_sizes[c]]
            if alike(regions):
                order = slots.view(-1)
            else:
                row = cloud_index(regions, pos.device)
                column = torch.arange(len(row), device=pos.device)
                order = slots[row, column - pointers(regions, pos.device)[row]]
            if whole:
                return order, region_sizes
            assert back is not None
            order = back[order]
            for c, part in zip(clouds, order.split([sizes[c] for c in clouds]), strict=True):
                parts[c] = part
    kept = [part for part in parts if part is not None]
    order = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64, device=pos.device)
    return order, region_sizes


@outside_transforms
@threads_for_searches()
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
    by_region, region_sizes = partition(pos[order], sizes, region_size)
    order = order[by_region]
    given = None
    if isinstance(centers, Tensor):
        given = _given_centers(centers, pos, sizes, num_centers, region_size)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        given = place[given]
    return stored_geometry(
        pos[order],
        sizes,
        region_sizes,
        num_centers=num_centers,
        k=k,
        centers=given if given is not None else centers,
        order=order,
        generator=generator,
        backend=backend,
    )


def _given_centers(
    centers: Tensor, pos: Tensor, sizes: Sequence[int], num_centers: int, region_size: int | None
) -> Tensor:
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
    starts = torch.tensor(starts_of([n for n in sizes if n]), device=centers.device)
    rows = centers.view(-1, num_centers)
    if bool(((rows < starts[:-1, None]) | (rows >= starts[1:, None])).any()):
        raise ValueError("centers must list, cloud by cloud, indices of that cloud's own points")
    return centers


def stored_geometry(
    pos: Tensor,
    sizes: Sequence[int],
    region_sizes: Sequence[Sequence[int]],
    *,
    num_centers: int,
    k: int,
    centers: str | Tensor = "fps",
    order: Tensor | None = None,
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> ClusterGeometry:
    """Centres and groupings for points that are stored region by region already.

    The arguments are trusted; `centers` may hold places.
    """
    device = pos.device
    regions = [n for of_cloud in region_sizes for n in of_cloud]
    counts, bounds = on_device(regions, device), pointers(regions, device)
    starts = bounds[:-1]
    region = cloud_index(regions, device)
    if isinstance(centers, Tensor):
        center = centers
    elif centers == "fps":
        nums = [min(num_centers, n) for n in regions]
        picks = sample(pos, nums, regions, backend=backend)
        if min(nums, default=num_centers) < num_centers:
            num = on_device(nums, device)[:, None]
            first = pointers(nums, device)[:-1, None]
            picks = picks[first + torch.arange(num_centers, device=device) % num].view(-1)
        center = picks
    elif centers == "random":
        # The first M of a random order; with fewer points than centres, repeated.
        noise = torch.rand(len(pos), generator=generator).to(device)
        shuffled = noise.sort(stable=True).indices
        shuffled = shuffled[region[shuffled].sort(stable=True).indices]
        column = torch.arange(num_centers, device=device) % counts[:, None]
        center = shuffled[starts[:, None] + column].view(-1)
    else:
        raise ValueError(f"centers must be 'fps', 'random' or a tensor, found {centers!r}")
    grouping = ops.knn(pos, pos[center], k, regions, [num_centers] * len(regions), backend=backend)
    group = grouping.view(-1, num_centers, k) - starts[:, None, None]
    count = counts.clamp(max=k)[:, None].repeat(1, num_centers)
    size = common_size(regions)  # a region holds points
    stored = stored_regions(group, count, region, bounds, size, pos.dtype)
    return ClusterGeometry(
        order=order,
        regions=stored._replace(most=max(regions, default=None)),
        center=center,
        batch=cloud_index(sizes, device),
        batch_size=len(sizes),
        cloud_size=common_size(sizes),
    )


def stored_regions(
    group: Tensor,
    count: Tensor,
    of: Tensor,
    ptr: Tensor,
    size: int | None,
    dtype: torch.dtype,
) -> Regions:
    """Regions with all that can be known of them before features are there."""
    regions = Regions(group, count, repeated_centers(group, count), size, ptr, of)
    return regions if size is None else regions._replace(pool=regions.pooling(dtype))


def repeated_centers(group: Tensor, count: Tensor) -> Tensor | None:
    """Centres whose points are those of an earlier one in any order: equal but for rounding, which
    must not choose between them. `None`: there are none, and a CPU was asked. [R, M]"""
    slot = torch.arange(group.size(2), device=group.device)
    points = group.masked_fill(slot >= count[..., None], -1).sort(dim=2).values
    same = (points[:, :, None] == points[:, None]).all(dim=3)  # [R, M, M]
    repeated = same.tril(-1).any(dim=2)
    return repeated if repeated.device.type != "cpu" or bool(repeated.any()) else None
