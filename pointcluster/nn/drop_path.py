"""Stochastic depth that leaves out whole clouds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leave out a residual branch for whole clouds, at random, in training.

    It is drawn once a cloud: a draw a row would leave out *points*. What stays is divided by the
    share that stays. ("Deep Networks with Stochastic Depth", Huang et al., ECCV 2016.)

    Args:
        p: Probability of leaving a cloud's branch out, in [0, 1).

    Shapes:
        - **x:** $(N, C)$, **batch:** $(N)$, or `None` for clouds of equal size
        - **output:** $(N, C)$

    Raises:
        ValueError: `p` lies outside [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), found {p}")
        self.p = p

    def forward(self, x: Tensor, batch: Tensor | None, batch_size: int) -> Tensor:
        keep = self.draw(batch_size, x)
        if keep is None:
            return x
        if batch is None:
            return (x.view(batch_size, -1, x.size(1)) * keep[:, None, None]).view_as(x)
        return x * keep[batch, None]

    def draw(self, batch_size: int, like: Tensor) -> Tensor | None:
        """What to multiply each cloud's branch by [B]; `None`: all stay as they are."""
        if not self.training or self.p == 0:
            return None
        keep = torch.empty(batch_size, dtype=like.dtype, device=like.device)
        return keep.bernoulli_(1 - self.p) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
