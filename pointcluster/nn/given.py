"""What a layer is given that keeps anchors: positions, or their geometry."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pointcluster.geometry import AnchorGeometry, anchor_geometry


def given_anchors(
    pos: Tensor | AnchorGeometry,
    batch: Tensor | None,
    batch_size: int | None,
    num: int | float | Sequence[int] | None,
    *,
    own: int | float,
    k: int,
) -> AnchorGeometry:
    """The geometry that a layer was given, or that of the positions it was given.

    Args:
        pos: Positions, or the geometry worked out before.
        batch: Sorted cloud index of each point, with positions.
        batch_size: Number of clouds, with positions.
        num: Anchors a cloud instead of the layer's own, with positions.
        own: The layer's own.
        k: Points an anchor gathers.

    Raises:
        TypeError, ValueError: The point set is malformed, or what goes with positions comes with a
            geometry.
    """
    if isinstance(pos, AnchorGeometry):
        if any(each is not None for each in (batch, batch_size, num)):
            raise ValueError(
                "batch, batch_size and num go with positions: a geometry that is given has been "
                "worked out already"
            )
        return pos
    return anchor_geometry(pos, own if num is None else num, k, batch, batch_size=batch_size)


def check_gathered(geometry: AnchorGeometry, k: int) -> None:
    """Check that a geometry's anchors gather as many points as the layer's.

    Raises:
        ValueError: They gather more or fewer.
    """
    if geometry.grouping.size(1) != k:
        raise ValueError(f"the geometry gathers {geometry.grouping.size(1)} points, the layer {k}")
