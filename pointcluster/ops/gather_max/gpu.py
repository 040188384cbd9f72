"""The maximum over gathered points on a GPU: from tensors to Triton's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from pointcluster.ops.launch import power_of_two

NUMBERS = 2048
"""Numbers that a program works on at a time."""
PARTS = 1024
"""Parts that gradients of weights are added up in."""
INNER = 64
"""Most axes of relative positions that kernels are made for."""


def fits(x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor) -> bool:
    """Whether the shapes are those of a gathering, all on one device; else torch's operations
    serve, or raise their errors."""
    from pointcluster.ops.gather_max import cpu

    there = [tensor for tensor in (x, relative, weight) if tensor is not None]
    return (
        cpu.fits(x, relative, weight, index)
        and (weight is None or weight.size(1) <= INNER)
        and all(tensor.device == index.device for tensor in there)
    )


def gather_max(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    """The maximum, and the neighbour that has it, both $(M, C)$.

    The GPU is not asked whether all points are there: what gathers one that is not is no number.
    """
    from pointcluster.ops.gather_max import gpu_kernels as kernels

    (anchors, near), like = index.shape, weight if x is None else x
    assert like is not None
    channels = like.size(0) if x is None else like.size(1)
    y = like.new_empty(anchors, channels)
    which = index.new_empty(anchors, channels, dtype=torch.int32)
    inner = 0 if weight is None else weight.size(1)
    block = min(64, power_of_two(channels))
    with torch.cuda.device_of(index):
        kernels.forward[(-(-anchors // (NUMBERS // block)), -(-channels // block))](
            x, relative, weight, index, y, which, 0 if x is None else len(x), anchors, channels,
            near, inner, BA=NUMBERS // block, BC=block, num_warps=4,
        )  # fmt: skip
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
    """Those gradients for x, relative and weight that are wanted."""
    from pointcluster.ops.gather_max import gpu_kernels as kernels

    (anchors, near), channels = index.shape, grad.size(1)
    to_x = to_relative = to_weight = None
    block = min(64, power_of_two(channels))
    across = -(-channels // block)
    with torch.cuda.device_of(index):
        if wanted[0] and points is not None:
            target, pairs = index.flatten().sort(stable=True)
            ptr = torch.searchsorted(target, torch.arange(points + 1, device=index.device))
            to_x = grad.new_empty(points, channels)
            rows = NUMBERS // block
            kernels.to_points[(-(-points // rows), across)](
                pairs, ptr, which, grad, to_x, points, channels, near, BN=rows, BC=block,
                num_warps=4,
            )  # fmt: skip
        if relative is not None and weight is not None:
            inner = weight.size(1)
            if wanted[1]:
                to_relative = torch.empty_like(relative)
                rows = power_of_two(near)
                kernels.to_relative[(anchors,)](
                    weight, which, grad, to_relative, channels, near, inner, BK=rows,
                    BC=max(1, min(power_of_two(channels), 2 * NUMBERS // rows)), num_warps=4,
                )  # fmt: skip
            if wanted[2]:
                chunk = -(-anchors // PARTS)
                parts = weight.new_empty(-(-anchors // chunk), *weight.shape, dtype=torch.float32)
                kernels.to_weight[(len(parts), across)](
                    relative, which, grad, parts, anchors, channels, near, inner, chunk, BC=block,
                    BI=power_of_two(inner), num_warps=4,
                )  # fmt: skip
                to_weight = parts.sum(dim=0).to(weight.dtype)
    return to_x, to_relative, to_weight
