"""The maximum over gathered points on the CPU: from tensors to the kernels' tables."""

from __future__ import annotations

import torch
from torch import Tensor

GATHERED = 1 << 15
"""Numbers that anchors gather at a time."""
ANCHORS = 128
"""Anchors at a time on the way back."""
CHANNELS = 16
"""Channels whose gradients a thread adds up at a time: a line of a cache."""


def fits(x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor) -> bool:
    """Whether the shapes are those of a gathering; else torch's operations raise their errors."""
    if index.dim() != 2 or index.numel() == 0 or index.dtype != torch.int64:
        return False
    if (relative is None) != (weight is None) or (x is None and relative is None):
        return False
    if x is not None and x.dim() != 2:
        return False
    if relative is None or weight is None:
        return True
    return (
        relative.dim() == 3
        and relative.shape[:2] == index.shape
        and weight.dim() == 2
        and weight.size(1) == relative.size(2)
        and (x is None or x.size(1) == weight.size(0))
    )


def gather_max(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    """The maximum, and the neighbour that has it, both $(M, C)$.

    Raises:
        IndexError: There is no such point.
    """
    from pointcluster.ops.gather_max.cpu_kernels import forward

    (anchors, near), like = index.shape, weight if x is None else x
    assert like is not None
    channels = like.size(0) if x is None else like.size(1)
    y = like.new_empty(anchors, channels)
    which = index.new_empty(anchors, channels, dtype=torch.int32)
    wrong = index.new_zeros(1)
    sizes = {
        "anchors": anchors, "near": near, "points": 0 if x is None else len(x),
        "channels": channels, "inner": 0 if weight is None else weight.size(1),
        "step": max(1, GATHERED // (near * channels)),
    }  # fmt: skip
    forward(
        sizes, x=x, relative=relative, weight=weight, index=index, y=y, which=which, wrong=wrong
    )
    if wrong.item():
        raise IndexError(f"anchors gather points beyond the {sizes['points']} that there are")
    return y, which


def gather_max_backward(
    points: int | None,
    relative: Tensor | None,
    weight: Tensor | None,
    index: Tensor,
    which: Tensor,
    grad: Tensor,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those gradients for x, relative and weight that are wanted.

    Raises:
        IndexError: There is no such point.
    """
    from pointcluster.ops.gather_max.cpu_kernels import backward

    (anchors, near), channels = index.shape, grad.size(1)
    to_x = grad.new_empty(points, channels) if wanted[0] and points is not None else None
    to_relative = torch.empty_like(relative) if wanted[1] and relative is not None else None
    to_weight = torch.empty_like(weight) if wanted[2] and weight is not None else None
    wrong = index.new_zeros(1)
    sizes = {
        "anchors": anchors, "near": near, "points": points or 0, "channels": channels,
        "inner": 0 if weight is None else weight.size(1), "step": ANCHORS,
        "wide": max(1, min(CHANNELS, -(-channels // torch.get_num_threads()))),
    }  # fmt: skip
    backward(
        sizes, relative=relative, weight=weight, index=index, which=which, grad=grad, to_x=to_x,
        to_relative=to_relative, to_weight=to_weight, wrong=wrong,
    )  # fmt: skip
    if wrong.item():
        raise IndexError(f"anchors gather points beyond the {sizes['points']} that there are")
    return to_x, to_relative, to_weight
