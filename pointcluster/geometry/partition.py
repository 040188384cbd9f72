"""The order of points that goes by their places alone, and clouds cut into regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointcluster.ops.search.clouds import (
    alike,
    in_line,
    of_like_size,
    on_device,
    on_host,
    padded_rows,
    slices,
    take,
)


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


def region_levels(size: int, region_size: int | None) -> int:
    """How often a cloud of `size` points is halved so that no region exceeds `region_size`."""
    if region_size is None or size <= region_size:
        return 0
    return (-(-size // region_size) - 1).bit_length()


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
    for level in range(max(levels, default=0), -1, -1):
        new = [n if at == level else 0 for n, at in zip(sizes, levels, strict=True)]
        for clouds in of_like_size(new):
            slots, _ = padded_rows(sizes, clouds, pos.device)
            parts.append(Parts(slots, [sizes[c] for c in clouds], clouds))
        if level:
            parts = [halve(pos, each) for each in joined(parts)]
    regions = [halved(n, at) if n else [] for n, at in zip(sizes, levels, strict=True)]
    # Where does each region begin, in one line of all rows?
    starts: list[list[int]] = [[] for _ in sizes]
    end = 0
    for slots, _, clouds in parts:
        for c in clouds:
            for _ in regions[c]:
                starts[c].append(end)
                end += slots.size(1)
    line = in_line([each.slots.view(-1) for each in parts], pos.device)
    return slices(line, [*chain(*starts)], [*chain(*regions)]), regions


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


def halved(size: int, levels: int) -> list[int]:
    """Points of the parts of a cloud that is halved so often."""
    parts = [size]
    for _ in range(levels):
        parts = [part for n in parts for part in ((n + 1) // 2, n // 2)]
    return parts
