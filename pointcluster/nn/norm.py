"""Normalisation over all points and channels of one cloud."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointcluster import ops


# PyG's LayerNorm(mode="graph") gives the same. It sums B x C numbers where B are enough, knows no
# clouds of equal size, for which torch has a kernel, and sums in half precision under autocast.
class CloudNorm(nn.Module):
    r"""Normalise each cloud over all its points and channels, then scale every channel.

    $$ y_{nc} = \gamma_c \frac{x_{nc} - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta_c $$

    with $\mu, \sigma^2$ over the points *and* channels of the point's cloud. On a lattice this is
    `GroupNorm` with one group. ("Group Normalization", Wu and He, ECCV 2018.)

    Args:
        channels: Number of channels C.
        eps: Added to the variance.

    Shapes:
        - **x:** $(N, C)$, **batch:** $(N)$, which may be `None` with `cloud_size`
        - **output:** $(N, C)$
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Tensor, batch: Tensor | None, batch_size: int, cloud_size: int | None = None
    ) -> Tensor:
        """Normalise; `cloud_size` says that every cloud has that many points (the fast case)."""
        given = x, self.weight, self.bias, batch, batch_size, cloud_size, self.eps
        return ops.cloud_norm(*given)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"
