"""Work out a network's geometry in the data loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from pointcluster.geometry import (
    AnchorPlan,
    LatticePlan,
    StagePlan,
    build_hierarchy,
    image_hierarchy,
    planned_anchors,
)
from pointcluster.geometry.pixels import picture_sizes


class PrecomputeHierarchy(BaseTransform):
    """Works out the hierarchy that a network needs, so that its step searches no neighbours.

    As a data set's transform it runs in the loader's worker processes. The hierarchy travels with
    the points as ``data.hierarchy``, through ``Batch``, ``pin_memory`` and ``to(device)``, and
    ``model(batch)`` takes it from there, with the same answer to the last bit::

        model = create_model("point_coc_tiny")
        transform = Compose([RandomTranslate(0.1), PrecomputeHierarchy(model.plans)])
        loader = DataLoader(HomeObjects(split="train", transform=transform), 32, num_workers=2)

    It comes after augmentation and after all else that changes points, since it depends on
    positions: a network refuses points that were changed since. A whole batch at once takes a part
    of the time that its clouds take one by one, so that torch's loader with
    ``collate_fn=PrecomputeHierarchy(model.plans).collate`` is the fastest way.

    Pictures: loose points with ``extent`` are given theirs; a whole lattice, with ``grid``, needs
    no search and is left as it is.

    Args:
        plans: ``model.plans``, or the model.

    Shapes and units:
        Needs ``pos`` ``[N, D]``; takes ``Data`` or ``Batch``.

    Raises:
        TypeError: ``plans`` are no plans.
        ValueError: There are no plans, no positions, or a picture's points have no ``extent``.
    """

    def __init__(self, plans: Any) -> None:
        plans = getattr(plans, "plans", plans)
        if not isinstance(plans, Sequence) or not (
            any(
                all(isinstance(plan, kind) for plan in plans)
                for kind in (StagePlan, AnchorPlan, LatticePlan)
            )
        ):
            raise TypeError(f"plans must be model.plans or a model that has them, found {plans!r}")
        if not plans:
            raise ValueError("there are no plans: a network without stages needs no hierarchy")
        self.plans: list[Any] = list(plans)

    def forward(self, data: Data) -> Data:
        if data.get("pos") is None:
            raise ValueError("PrecomputeHierarchy needs points with 'pos'")
        batch, kind = data.get("batch"), type(self.plans[0])
        hierarchy: Any
        if kind is not LatticePlan:
            size = data.num_graphs if isinstance(data, Batch) else None
            build: Any = planned_anchors if kind is AnchorPlan else build_hierarchy
            hierarchy = build(data.pos, self.plans, batch, batch_size=size)
        elif "grid" in data:
            return data
        elif "extent" in data:
            extents = picture_sizes("extent", data.extent)
            hierarchy = image_hierarchy(data.pos, extents, self.plans, batch)
        else:
            raise ValueError(
                "PrecomputeHierarchy needs 'extent', the size (H, W) of the picture that the "
                "points are of: put it after ImageToPoints and what drops pixels"
            )
        # A copy of the positions, to notice points that are moved in place afterwards.
        data.hierarchy = hierarchy._replace(pos=data.pos.detach().clone())
        return data

    def collate(self, items: Sequence[Data]) -> Batch:
        """A batch of clouds with their hierarchy, worked out for all at once."""
        return self(Batch.from_data_list(list(items)))

    def __repr__(self) -> str:
        return f"PrecomputeHierarchy({self.plans})"
