"""Batch normalisation of points."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that a batch of one single point, too, can be trained through.

    Shapes:
        - **x:** $(N, C)$
        - **output:** $(N, C)$
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel over the points; a single point by the running statistics."""
        if self.training and len(x) < 2:
            args = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(x, *args, training=False, eps=self.eps)
        return super().forward(x)
