"""Hierarchies of several clouds as one, and the one that a point set carries with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.geometry.anchors import AnchorGeometry
from pointcluster.geometry.carry import CarryGeometry
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry
from pointcluster.geometry.region import ClusterGeometry
from pointcluster.ops.launch import stop_unless
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import starts_of


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
    clouds, stages = [each.batch_size for each in hierarchies], []
    for parts in zip(*(each.stages for each in hierarchies), strict=True):
        anchors = _join_anchors([part.anchors for part in parts], clouds)
        clusters = [part.clusters for part in parts if part.clusters is not None]
        stages.append(
            StageGeometry(anchors, _join_clusters(clusters, anchors) if clusters else None)
        )
    known = all(each.pos is not None for each in hierarchies)
    pos = torch.cat([each.pos for each in hierarchies if each.pos is not None]) if known else None
    batch = _shifted((each.batch for each in hierarchies), clouds) if known else None
    carries = _join_carries(hierarchies)
    return Hierarchy(tuple(stages), sum(clouds), hierarchies[0].plans, pos, batch, carries)


def _form(hierarchy: Hierarchy) -> list[tuple[int, ...]]:
    """What the stages of one plan have in common; without regions no centres."""
    form = []
    for anchors, clusters in hierarchy.stages:
        centers = () if clusters is None else (clusters.regions.num_centers,)
        form.append((*anchors.relative.shape[1:], *centers))
    return form


def _join_anchors(parts: Sequence[AnchorGeometry], clouds: Sequence[int]) -> AnchorGeometry:
    before = [part.num_points for part in parts]
    index = {}
    for name in ("anchor", "grouping"):
        tables = [getattr(part, name) for part in parts]
        joined = _shifted(tables, before)
        if any(part.outside for part in parts):  # a part's size stands for no point of it
            out = torch.cat([each >= size for each, size in zip(tables, before, strict=True)])
            joined = joined.masked_fill(out, sum(before))
        index[name] = joined
    return AnchorGeometry(
        **index,
        relative=torch.cat([part.relative for part in parts]),
        radius=torch.cat([part.radius for part in parts]),
        pos=torch.cat([part.pos for part in parts]),
        batch=_shifted((part.batch for part in parts), clouds),
        num_points=sum(before),
        batch_size=sum(clouds),
        # A part without clouds has no say in their size.
        cloud_size=_common(part.cloud_size for part in parts if part.batch_size),
        outside=any(part.outside for part in parts),
    )


def _join_carries(hierarchies: Sequence[Hierarchy]) -> tuple[CarryGeometry, ...]:
    out = []
    for stage, parts in enumerate(zip(*(each.carries for each in hierarchies), strict=True)):
        anchors = [len(each.stages[stage].anchors.pos) for each in hierarchies]
        index = _shifted((part.index for part in parts), anchors)
        out.append(CarryGeometry(index, torch.cat([part.weight for part in parts])))
    return tuple(out)


def _join_clusters(parts: Sequence[ClusterGeometry], anchors: AnchorGeometry) -> ClusterGeometry:
    points = [len(part.batch) for part in parts]
    orders: list[Tensor] | None = None
    if any(part.order is not None for part in parts):
        orders = [
            torch.arange(len(part.batch), device=part.batch.device)
            if part.order is None
            else part.order
            for part in parts
        ]
    return ClusterGeometry(
        order=None if orders is None else _shifted(orders, points),
        regions=_join_regions([part.regions for part in parts], points),
        center=_shifted((part.center for part in parts), points),
        batch=anchors.batch,
        batch_size=anchors.batch_size,
        cloud_size=anchors.cloud_size,
    )


def _join_regions(parts: Sequence[Regions], points: Sequence[int]) -> Regions:
    # Nor has one without regions, in their size or in how many points a centre is the mean of.
    counts = [len(part.group) for part in parts]
    some = [part for part in parts if len(part.group)] or list(parts[:1])
    wide = max(part.group.size(2) for part in some)
    closed = None
    if any(part.closed is not None for part in some):
        closed = torch.cat([
            torch.zeros_like(part.filled, dtype=torch.bool) if part.closed is None else part.closed
            for part in some
        ])  # fmt: skip
    size = _common(part.size for part in some)
    known = [most for part in some if (most := part.size or part.most) is not None]
    ptr = [part.starts(n)[:-1] for part, n in zip(parts, points, strict=True)]
    ptr.append(torch.zeros(1, dtype=torch.int64, device=ptr[0].device))
    return Regions(
        group=torch.cat([_widened(part.group, wide) for part in some]),
        filled=torch.cat([part.filled for part in some]),
        closed=closed,
        size=size,
        ptr=_shifted(ptr, [*points, 0]),
        of=_shifted((part.region(n) for part, n in zip(parts, points, strict=True)), counts),
        pool=None
        if size is None
        else torch.cat([part.pool for part in some if part.pool is not None]),
        most=max(known) if len(known) == len(some) else None,
    )


def _shifted(indices: Iterable[Tensor | None], sizes: Sequence[int]) -> Tensor:
    """Indices into parts of these sizes, counting on from the parts before."""
    starts = starts_of(sizes)[: len(sizes)]
    return torch.cat([i + start for i, start in zip(indices, starts, strict=True) if i is not None])


def _widened(group: Tensor, width: int) -> Tensor:
    """Groupings filled up with their first point, which counts for nothing there."""
    more = width - group.size(2)
    return torch.cat([group, group[..., :1].expand(-1, -1, more)], dim=2) if more else group


def _common(sizes: Iterable[int | None]) -> int | None:
    """The size that all have, if there is one."""
    found = set(sizes)
    return found.pop() or None if len(found) == 1 else None


def known_hierarchy(
    data: Data, plans: Sequence[Any], hierarchy: Hierarchy | None = None
) -> Hierarchy | None:
    """The hierarchy that is given beside a point set, or that it carries; `None`: neither.

    `data.hierarchy` is a :class:`Hierarchy`, or in a batch a list of them, as PyG collates it.

    Args:
        data: The points.
        plans: What the hierarchy must have been built by.
        hierarchy: What is given beside them.

    Raises:
        TypeError: It is something else.
        ValueError: It was built by other plans, is on another device, or the points are not those
            that it was built for: other in number, clouds, order or position.
        RuntimeError: Their positions or clouds are others, on a GPU, which is not waited for and
            stops at its next synchronisation.
    """
    found, where = hierarchy, "that is given"
    if found is None:
        found, where = data.get("hierarchy"), "that the data carry"
        if found is None:
            return None
    parts = list(_parts(found))
    for part in parts:
        _check_plans(part, plans, where)
    whole = join_hierarchies(parts)
    _check_points(data, whole, where)
    return whole


def _parts(found: Any) -> Iterator[Hierarchy]:
    """From one hierarchy, or from lists of them: a batch of batches has lists of lists."""
    if isinstance(found, Hierarchy):
        yield found
    elif isinstance(found, list) and found:
        for part in found:
            yield from _parts(part)
    else:
        raise TypeError(
            "a hierarchy is what build_hierarchy() or PrecomputeHierarchy makes, found "
            f"{type(found).__name__}"
        )


def _check_plans(hierarchy: Hierarchy, plans: Sequence[Any], where: str) -> None:
    found = hierarchy.plans
    alike = {type(plan) for plan in found} == {type(plan) for plan in plans}
    if alike and [*map(tuple, found)] == [*map(tuple, plans)]:
        if len(hierarchy.stages) != len(plans):
            raise ValueError(
                f"the hierarchy {where} has {len(hierarchy.stages)} stages, the network has "
                f"{len(plans)}"
            )
        return
    raise ValueError(
        f"the hierarchy {where} was worked out by other plans, {list(found)}, than the network's, "
        f"{list(plans)}: use PrecomputeHierarchy(model.plans)"
    )


def _check_points(data: Data, hierarchy: Hierarchy, where: str) -> None:
    pos, seen, batch = data.pos, hierarchy.pos, data.batch
    if seen is None or hierarchy.batch is None:
        return
    since = "since PrecomputeHierarchy, which comes after all that changes points"
    if pos.shape != seen.shape:
        raise ValueError(
            f"pos has shape {list(pos.shape)}, but the hierarchy {where} was worked out for "
            f"{list(seen.shape)}: points or axes were dropped or added {since}"
        )
    clouds = 1
    if batch is not None:
        clouds = data.num_graphs if hasattr(data, "num_graphs") else hierarchy.batch_size
    if clouds != hierarchy.batch_size:
        raise ValueError(
            f"there are {clouds} clouds, but the hierarchy {where} is of {hierarchy.batch_size}"
        )
    if pos.device != seen.device:
        raise ValueError(
            f"pos is on {pos.device}, the hierarchy {where} on {seen.device}: move the data as a "
            "whole, data.to(device), or the hierarchy, hierarchy.to(device)"
        )
    same = (pos.to(seen.dtype) == seen).all()
    if batch is not None:
        same = same & (batch == hierarchy.batch).all()
    text = (
        f"the points are not where they were when the hierarchy {where} was worked out: they were "
        f"moved, sorted or put into other clouds {since}"
    )
    if pos.device.type != "cpu" or torch.compiler.is_compiling():
        stop_unless(same, text)
    elif not bool(same):
        raise ValueError(text)
