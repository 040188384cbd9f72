"""The hierarchy that a point set carries with it, or that is given beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pointcluster.geometry.hierarchy import Hierarchy
from pointcluster.geometry.join import join_hierarchies
from pointcluster.ops.launch import stop_unless


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
    if [(type(plan), *plan) for plan in found] != [(type(plan), *plan) for plan in plans]:
        raise ValueError(
            f"the hierarchy {where} was worked out by other plans, {list(found)}, than the "
            f"network's, {list(plans)}: use PrecomputeHierarchy(model.plans)"
        )
    if len(hierarchy.stages) != len(plans):
        raise ValueError(
            f"the hierarchy {where} has {len(hierarchy.stages)} stages, the network has "
            f"{len(plans)}"
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
