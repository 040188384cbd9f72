"""A hierarchy that a point set carries with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pointcluster.geometry.anchors import AnchorHierarchy, AnchorPlan
from pointcluster.geometry.hierarchy import Hierarchy, StagePlan, anchors_of
from pointcluster.geometry.lattice import LatticePlan
from pointcluster.geometry.packed import pack_hierarchy, unpack_hierarchy

Plans = Sequence[StagePlan] | Sequence[LatticePlan] | Sequence[AnchorPlan]


NEEDED = ("layout", "plans", "seen", "sizes")


def carry_hierarchy(data: Data, hierarchy: Hierarchy | AnchorHierarchy, plans: Plans) -> None:
    """Put the hierarchy of a point set into `data.hierarchy`, in a form that a PyG `Batch` joins.

    Args:
        data: The points that it was built for.
        hierarchy: Their geometry.
        plans: What it was built by.
    """
    tables = pack_hierarchy(hierarchy)
    # What it was built for, to notice points that have been moved, sorted or regrouped since.
    tables["seen"] = data.pos.detach().clone()
    batch = data.batch
    tables["sizes"] = (
        torch.tensor([len(data.pos)], device=data.pos.device)
        if batch is None
        else torch.bincount(batch, minlength=hierarchy.batch_size)
    )
    tables["plans"] = (type(plans[0]).__name__, tuple(tuple(plan) for plan in plans))
    data.hierarchy = tables


def carried_hierarchy(data: Data, plans: Plans) -> Any:
    """The hierarchy that a point set carries, or `None`: it carries none.

    Args:
        data: The points.
        plans: What the hierarchy must have been built by.

    Returns:
        A :class:`Hierarchy`, or an :class:`AnchorHierarchy` where plans are of anchors alone.

    Raises:
        TypeError: `data.hierarchy` is something else.
        ValueError: It was built by other plans, is on another device, or the points are no longer
            those that it was built for: other in number, clouds, order or position. (On a GPU,
            looking at the positions is the one synchronisation of a batch.)
    """
    tables = data.get("hierarchy")
    if tables is None:
        return None
    if not isinstance(tables, Mapping) or not {*NEEDED} <= tables.keys():
        raise TypeError(
            "data.hierarchy is what PrecomputeHierarchy puts there, found "
            f"{type(tables).__name__}: a hierarchy of your own goes beside the data, as in "
            "model(data, hierarchy)"
        )
    _check_plans(tables["plans"], plans)
    hierarchy = unpack_hierarchy(tables)
    _check_points(data, hierarchy, tables)
    return hierarchy


def _check_plans(found: Sequence[Any], plans: Plans) -> None:
    if not isinstance(found[0], str):  # a batch lists what its clouds bring
        for each in found:
            _check_plans(each, plans)
        return
    name, stages = found
    expected = [tuple(plan) for plan in plans]
    if name != type(plans[0]).__name__ or [tuple(stage) for stage in stages] != expected:
        raise ValueError(
            f"the hierarchy that the data carry was worked out by other plans, {name} "
            f"{[tuple(stage) for stage in stages]}, than the network's, {type(plans[0]).__name__} "
            f"{expected}: use PrecomputeHierarchy(model.plans)"
        )


def _check_points(
    data: Data, hierarchy: Hierarchy | AnchorHierarchy, tables: Mapping[str, Any]
) -> None:
    pos, seen, first = data.pos, tables["seen"], anchors_of(hierarchy.stages[0])
    since = "since PrecomputeHierarchy, which comes after all that changes points"
    found, expected = list(pos.shape), list(seen.shape)
    if found != expected:
        raise ValueError(
            f"pos has shape {found}, but the hierarchy that the data carry was worked out for "
            f"{expected}: points or axes were dropped or added {since}"
        )
    batch = data.batch
    clouds = data.num_graphs if batch is not None and hasattr(data, "num_graphs") else None
    if (clouds or hierarchy.batch_size) != hierarchy.batch_size or (
        batch is None and hierarchy.batch_size != 1
    ):
        raise ValueError(
            f"there are {clouds or 1} clouds, but the hierarchy that the data carry is of "
            f"{hierarchy.batch_size}"
        )
    if pos.device != first.anchor.device:
        raise ValueError(
            f"pos is on {pos.device}, the hierarchy that the data carry on {first.anchor.device}: "
            "move the data as a whole, data.to(device)"
        )
    same = (pos == seen).all()
    if batch is not None:
        clouds_then = torch.arange(hierarchy.batch_size, device=pos.device).repeat_interleave(
            tables["sizes"], output_size=len(pos)
        )
        same = same & (batch == clouds_then).all()
    if not bool(same):
        raise ValueError(
            f"the points are not where they were when the hierarchy was worked out: they were "
            f"moved, sorted or put into other clouds {since}"
        )
