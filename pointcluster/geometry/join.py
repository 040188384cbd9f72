"""Several hierarchies as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pointcluster.geometry.anchors import AnchorHierarchy
from pointcluster.geometry.hierarchy import Hierarchy, StageGeometry, anchors_of
from pointcluster.geometry.packed import pack_hierarchy, unpack_hierarchy

AnyHierarchy = TypeVar("AnyHierarchy", Hierarchy, AnchorHierarchy)


def join_hierarchies(hierarchies: Sequence[AnyHierarchy]) -> AnyHierarchy:
    """The hierarchy of all clouds of several hierarchies, in their order.

    It equals, to the last bit, the one that is built for the joined clouds: a cloud's geometry does
    not depend on the others. What only batches of equal clouds have (`pool`, `region_size`,
    `cloud_size`) the joined hierarchy has where all these clouds are equal.

    Args:
        hierarchies: Built by the same plans, on one device; of anchors alone, or with regions.

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
    parts = [pack_hierarchy(hierarchy) for hierarchy in hierarchies]
    joined: dict[str, Any] = {name: [part[name] for part in parts] for name in parts[0]}
    for name, values in joined.items():
        if isinstance(values[0], Tensor):
            joined[name] = torch.cat(values)
    whole: Any = unpack_hierarchy(joined)
    return whole


def _form(hierarchy: Hierarchy | AnchorHierarchy) -> list[tuple[int, ...]]:
    """What the stages of one plan have in common; without regions no centres."""
    form = []
    for stage in hierarchy.stages:
        centers = (stage.clusters.num_centers,) if isinstance(stage, StageGeometry) else ()
        form.append((*anchors_of(stage).relative.shape[1:], *centers))
    return form
