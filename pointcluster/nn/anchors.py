"""The anchors of a layer that keeps some: of positions, or of their geometry."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pointcluster.geometry import AnchorGeometry, anchor_geometry


def anchors_for(
    pos: Tensor | AnchorGeometry,
    batch: Tensor | None,
    batch_size: int | None,
    num: int | float | Sequence[int] | None,
    *,
    default: int | float,
    k: int,
) -> AnchorGeometry:
    """The geometry that a layer was given, or that of the positions it was given.

    Args:
        pos: Positions, or the geometry worked out before.
        batch: Sorted cloud index of each point, with positions.
        batch_size: Number of clouds, with positions.
        num: Anchors a cloud, with positions.
        default: Anchors a cloud where `num` says nothing.
        k: Points an anchor gathers.

    Raises:
        TypeError, ValueError: The point set is malformed, what goes with positions comes with a
            geometry, or its anchors gather more or fewer points.
    """
    if not isinstance(pos, AnchorGeometry):
        num = default if num is None else num
        return anchor_geometry(pos, num, k, batch, batch_size=batch_size)
    if any(value is not None for value in (batch, batch_size, num)):
        raise ValueError(
            "batch, batch_size and num go with positions: a geometry that is given has been "
            "worked out already"
        )
    if pos.grouping.size(1) != k:
        raise ValueError(f"the geometry gathers {pos.grouping.size(1)} points, the layer {k}")
    return pos
