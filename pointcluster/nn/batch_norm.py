"""Batch normalisation of points."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster.nn.plain import is_plain, is_watched


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


def normed_linear(x: Tensor, linear: Any, norm: Any) -> Tensor:
    """A linear map without bias and the normalisation of what it gives.

    By known statistics the two are one linear map, a pass over the points less.
    """
    if (
        is_plain(linear, bias=False)
        and type(norm) is BatchNorm
        and not (norm.training or norm.running_mean is None or is_watched(norm))
    ):
        known: Any = norm
        scale = known.weight * (known.running_var + known.eps).rsqrt()
        shift = known.bias - known.running_mean * scale
        return F.linear(x, linear.weight * scale[:, None], shift)
    y: Tensor = norm(linear(x))
    return y
