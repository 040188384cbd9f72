"""Normalisation of clouds, written to be read. Every backend gives this answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from pointcluster.ops.precision import at_least_float32, no_autocast


def cloud_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None,
    eps: float,
) -> Tensor:
    """See :func:`pointcluster.ops.cloud_norm`. Also the torch path."""
    with no_autocast(x):
        wide = at_least_float32(x)
        weight, bias = weight.to(wide.dtype), bias.to(wide.dtype)
        if cloud_size is not None:
            # Channels last, as GroupNorm's images [B, C, n, 1] may be stored.
            image = wide.view(batch_size, cloud_size, 1, -1).permute(0, 3, 1, 2)
            image = F.group_norm(image, 1, weight, bias, eps)
            return image.permute(0, 2, 3, 1).reshape(x.shape).to(x.dtype)
        if batch is None:
            raise ValueError("clouds that may differ in size need a batch vector")
        # The mean over channels first: B numbers, not B x C, are summed over points.
        mean = scatter(wide.mean(dim=1), batch, dim_size=batch_size, reduce="mean")
        wide = wide - mean[batch, None]
        square = wide.square().mean(dim=1)
        var = scatter(square, batch, dim_size=batch_size, reduce="mean")
        wide = wide * (var + eps).rsqrt()[batch, None]
        return torch.addcmul(bias, wide, weight).to(x.dtype)
