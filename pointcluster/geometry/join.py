"""Hierarchies of several clouds as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pointcluster.geometry.anchors import AnchorGeometry
from pointcluster.geometry.carry import CarryGeometry
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry
from pointcluster.geometry.region import ClusterGeometry
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import cloud_index, on_device, starts_of


def join_hierarchies(hierarchies: Sequence[Hierarchy]) -> Hierarchy:
    """The hierarchy of all clouds of several hierarchies, in their order.

    It equals, to the last bit, the one that is built for the joined clouds: a cloud's geometry does
    not depend on the others. What only batches of equal clouds have (`pool`, `size`, `cloud_size`)
    the joined hierarchy has where all these clouds are equal. All that is done is to add offsets:
    nothing is searched, and nothing waits for a device.

    Args:
        hierarchies: Built by the same plans, on one device.

    Raises:
        ValueError: There are none, or their plans differ.
    """
    if not hierarchies:
        raise ValueError("there are no hierarchies to join")
    expected = _form(hierarchies[0])
    for number, hierarchy in enumerate(hierarchies):
        if (found := _form(hierarchy)) != expected:
            raise ValueError(
                "hierarchies of different plans cannot be joined: points an anchor gathers, axes "
                f"and centres a region are {expected} in the first, {found} in number {number}"
            )
    if len(hierarchies) == 1:
        return hierarchies[0]
    clouds, stages, carries = [each.batch_size for each in hierarchies], [], []
    for parts in zip(*(each.stages for each in hierarchies), strict=True):
        anchors = _join_anchors([part.anchors for part in parts], clouds)
        clusters = [part.clusters for part in parts if part.clusters is not None]
        stages.append(
            StageGeometry(anchors, _join_clusters(clusters, anchors) if clusters else None)
        )
    for s, of_stage in enumerate(zip(*(each.carries for each in hierarchies), strict=True)):
        kept = [len(each.stages[s].anchors.pos) for each in hierarchies]
        carries.append(
            CarryGeometry(**_all(of_stage, "weight"), **_all(of_stage, "index", of=kept))
        )
    points: dict[str, Tensor] = {}
    if all(each.pos is not None for each in hierarchies):
        points = _all(hierarchies, "pos") | _all(hierarchies, "batch", of=clouds)
    plans = hierarchies[0].plans
    return Hierarchy(tuple(stages), sum(clouds), plans, carries=tuple(carries), **points)


def _form(hierarchy: Hierarchy) -> list[tuple[int, ...]]:
    """What the stages of one plan have in common; without regions no centres."""
    form = []
    for anchors, clusters in hierarchy.stages:
        centers = () if clusters is None else (clusters.regions.num_centers,)
        form.append((*anchors.relative.shape[1:], *centers))
    return form


def _join_anchors(parts: Sequence[AnchorGeometry], clouds: Sequence[int]) -> AnchorGeometry:
    before = [part.num_points for part in parts]
    index = _all(parts, "anchor", "grouping", of=before)
    if outside := any(part.outside for part in parts):  # a part's size stands for no point of it
        for name, joined in index.items():
            out = [getattr(part, name) >= part.num_points for part in parts]
            index[name] = joined.masked_fill(torch.cat(out), sum(before))
    return AnchorGeometry(
        **index,
        **_all(parts, "relative", "radius", "pos"),
        **_all(parts, "batch", of=clouds),
        num_points=sum(before),
        batch_size=sum(clouds),
        # A part without clouds has no say in their size.
        cloud_size=_common(part.cloud_size for part in parts if part.batch_size),
        outside=outside,
    )


def _join_clusters(parts: Sequence[ClusterGeometry], anchors: AnchorGeometry) -> ClusterGeometry:
    points = [len(part.batch) for part in parts]
    order = None
    if any(part.order is not None for part in parts):
        device = anchors.batch.device
        order = _counting_on(
            [
                torch.arange(n, device=device) if part.order is None else part.order
                for part, n in zip(parts, points, strict=True)
            ],
            points,
        )
    return ClusterGeometry(
        order=order,
        regions=_join_regions([part.regions for part in parts], points),
        **_all(parts, "center", of=points),
        batch=anchors.batch,
        batch_size=anchors.batch_size,
        cloud_size=anchors.cloud_size,
    )


def _join_regions(parts: Sequence[Regions], points: Sequence[int]) -> Regions:
    device, counts = parts[0].group.device, [len(part.group) for part in parts]
    ptr = [part.starts(n)[:-1] for part, n in zip(parts, points, strict=True)]
    of = [part.region(n) for part, n in zip(parts, points, strict=True)]
    end = torch.zeros(1, dtype=torch.int64, device=device)
    # A part without regions has no say in their size or in how many points a centre is the mean of.
    some = [part for part in parts if len(part.group)] or list(parts[:1])
    wide = max(part.group.size(2) for part in some)
    closed = None
    if any(part.closed is not None for part in some):
        open_ = [torch.zeros_like(part.filled, dtype=torch.bool) for part in some]
        closed = torch.cat(
            [o if part.closed is None else part.closed for part, o in zip(some, open_, strict=True)]
        )
    size = _common(part.size for part in some)
    known = [most for part in some if (most := part.size or part.most) is not None]
    return Regions(
        group=torch.cat([_widened(part.group, wide) for part in some]),
        **_all(some, "filled"),
        closed=closed,
        size=size,
        ptr=_counting_on([*ptr, end], [*points, 0]),
        of=_counting_on(of, counts),
        pool=None if size is None else _all(some, "pool")["pool"],
        most=max(known) if len(known) == len(some) else None,
    )


def _all(parts: Sequence[Any], *names: str, of: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Fields of all parts, one part's after the other's; indices of so many things count on."""
    fields = {name: [getattr(part, name) for part in parts] for name in names}
    return {
        name: torch.cat(each) if of is None else _counting_on(each, of)
        for name, each in fields.items()
    }


def _counting_on(indices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Indices into parts of these sizes, counting on from the parts before."""
    joined = torch.cat(list(indices))
    part = cloud_index([len(each) for each in indices], joined.device)
    start = on_device(starts_of(sizes)[:-1], joined.device)[part]
    return joined + start.view(-1, *[1] * (joined.dim() - 1))


def _widened(group: Tensor, width: int) -> Tensor:
    """Groupings filled up with their first point, which counts for nothing there."""
    more = width - group.size(2)
    return torch.cat([group, group[..., :1].expand(-1, -1, more)], dim=2) if more else group


def _common(sizes: Iterable[int | None]) -> int | None:
    """The size that all have, if there is one."""
    found = set(sizes)
    return found.pop() or None if len(found) == 1 else None
