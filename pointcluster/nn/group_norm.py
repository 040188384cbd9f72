"""Batch normalisation of rows that come some at a time, forth and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Affine(NamedTuple):
    """A batch normalisation as a scale and a shift of every channel."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    rstd: Tensor

    @classmethod
    def of(cls, mean: Tensor, var: Tensor, gamma: Tensor, shift: Tensor, eps: float) -> Affine:
        """From the statistics and the parameters."""
        rstd = (var + eps).rsqrt()
        return cls(gamma * rstd, shift - mean * gamma * rstd, mean, rstd)


class Moments:
    """Mean and variance of rows that come some at a time, about where the first ones lie."""

    def __init__(self, channels: int, like: Tensor) -> None:
        self.pivot: Tensor | None = None
        self.count = 0
        self.first, self.second = torch.zeros(2, channels, dtype=torch.float64, device=like.device)
        self.dtype = like.dtype

    def add(self, rows: Tensor) -> None:
        """Take in some of the rows."""
        ones = rows.new_ones(1, len(rows))  # a product with ones: far faster than a sum of rows
        if self.pivot is None:
            self.pivot = (ones @ rows).squeeze(0) / len(rows)
        rows = rows - self.pivot
        self.count += len(rows)
        self.first += (ones @ rows).squeeze(0)
        self.second += (ones @ rows.square_()).squeeze(0)

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (of the rows, not corrected) of all that were taken in."""
        pivot = 0 if self.pivot is None else self.pivot
        mean = self.first / self.count
        var = (self.second / self.count - mean.square()).clamp_min(0)
        return (pivot + mean).to(self.dtype), var.to(self.dtype)


class NormBack:
    """A batch normalisation going back: sums over all rows first, then row by row."""

    def __init__(self, affine: Affine, own: bool, count: int) -> None:
        self.affine, self.own, self.count = affine, own, count
        size = affine.scale.shape
        device = affine.scale.device
        self.first, self.second = torch.zeros(2, *size, dtype=torch.float64, device=device)

    def add(self, grad: Tensor, z: Tensor) -> None:
        """Gradients of some of what came out, and what had gone in."""
        ones = grad.new_ones(1, len(grad))
        self.first += (ones @ grad).squeeze(0)
        self.second += (ones @ (z - self.affine.mean).mul_(grad)).squeeze(0)

    def parameters(self) -> tuple[Tensor, Tensor]:
        """The gradients of scale and shift."""
        scale, _, _, rstd = self.affine
        return (self.second * rstd).to(scale.dtype), self.first.to(scale.dtype)

    def input(self, grad: Tensor, z: Tensor) -> Tensor:
        """The gradient of what had gone in."""
        scale, _, mean, rstd = self.affine
        if not self.own:
            return grad * scale
        slope = -(scale * rstd.square() * self.second / self.count)
        constant = -(scale * self.first / self.count) - slope * mean
        return torch.addcmul(constant.to(grad.dtype), grad, scale).addcmul_(z, slope.to(grad.dtype))
