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
        - **x:** $(N, C)$, **batch:** $(N)$
        - **output:** $(N, C)$

    Raises:
        ValueError: `p` lies outside [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), found {p}")
        self.p = p

    def forward(self, x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty(batch_size, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * (keep / (1 - self.p))[batch, None]

    def extra_repr(self) -> str:
        return f"p={self.p}"
