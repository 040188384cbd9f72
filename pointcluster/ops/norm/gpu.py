"""Normalisation of clouds on a GPU: from tensors to Triton's kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointcluster.ops.launch import power_of_two

NUMBERS = 4096
"""Numbers that a program works on at a time."""
PROGRAMS = 2048
"""About as many programs work on a large batch."""


def fits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None,
    eps: float,
) -> bool:
    """Whether shapes are those of clouds; else torch's operations serve, or raise their errors."""
    clouds = len(x) == batch_size * cloud_size if cloud_size is not None else (
        batch is not None and batch.shape == x.shape[:1] and batch.device == x.device
    )  # fmt: skip
    return x.dim() == 2 and clouds and weight.shape == bias.shape == x.shape[1:]


class _Work:
    """How the work is cut up, and what all kernels are told of the shapes."""

    def __init__(
        self, x: Tensor, batch: Tensor | None, batch_size: int, cloud_size: int | None
    ) -> None:
        n, channels = x.shape
        block = min(power_of_two(channels), 256)
        rows = max(1, NUMBERS // power_of_two(channels))
        chunk = max(rows, power_of_two(n // PROGRAMS))
        self.ptr = None
        self.programs = batch_size * -(-(cloud_size or 0) // chunk)
        if cloud_size is None:
            assert batch is not None
            bounds = torch.arange(batch_size + 1, device=x.device)
            self.ptr = torch.searchsorted(batch, bounds)
            self.programs = n // chunk + batch_size
        self.parts = x.new_empty(self.programs, 3, dtype=torch.float32)
        self.numbers = batch_size, n, cloud_size, channels, chunk, batch_size.bit_length()
        self.blocks: dict[str, Any] = {"BN": NUMBERS, "BC": block, "BP": NUMBERS // block}
        self.blocks["num_warps"] = 8

    def some(self, *names: str) -> dict[str, Any]:
        """Those blocks that a kernel takes."""
        return {name: self.blocks[name] for name in (*names, "num_warps")}


def cloud_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised features, and the mean of every cloud and one over its deviation."""
    from pointcluster.ops.norm import gpu_kernels as kernels

    work, y = _Work(x, batch, batch_size, cloud_size), torch.empty_like(x)
    # Of clouds without points: what they would be scaled by.
    mean, scale = (x.new_zeros(batch_size, dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(x):
        kernels.statistics[(work.programs,)](
            x, work.ptr, work.parts, *work.numbers, **work.some("BN")
        )
        kernels.normalise[(work.programs,)](
            x, work.ptr, work.parts, weight, bias, y, mean, scale, eps, *work.numbers,
            BQ=256, **work.some("BP", "BC"),
        )  # fmt: skip
    return y, mean, scale


def cloud_norm_backward(
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    scale: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for x, weight and bias."""
    from pointcluster.ops.norm import gpu_kernels as kernels

    work, to_x = _Work(x, batch, batch_size, cloud_size), torch.empty_like(x)
    channels = x.new_zeros(work.programs, 2, x.size(1), dtype=torch.float32)
    with torch.cuda.device_of(x):
        kernels.sums[(work.programs,)](
            x, work.ptr, weight, mean, scale, grad, work.parts, channels, *work.numbers,
            **work.some("BP", "BC"),
        )  # fmt: skip
        kernels.backward[(work.programs,)](
            x, work.ptr, weight, mean, scale, grad, work.parts, to_x, *work.numbers, BQ=256,
            **work.some("BP", "BC"),
        )  # fmt: skip
    to_weight, to_bias = channels.sum(dim=0).to(weight.dtype)
    return to_x, to_weight, to_bias
