"""Normalisation over all points and channels of one cloud."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pointcluster.ops.precision import no_autocast


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
        with no_autocast(x):
            wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
            if cloud_size is not None:
                # Channels last, as GroupNorm's images [B, C, n, 1] may be stored.
                image = wide.view(batch_size, cloud_size, 1, -1).permute(0, 3, 1, 2)
                image = F.group_norm(image, 1, weight, bias, self.eps)
                return image.permute(0, 2, 3, 1).reshape(x.shape).to(x.dtype)
            if batch is None:
                raise ValueError("clouds that may differ in size need a batch vector")
            # The mean over channels first: B numbers, not B x C, are summed over points.
            mean = scatter(wide.mean(dim=1), batch, dim_size=batch_size, reduce="mean")
            wide = wide - mean[batch, None]
            square = wide.square().mean(dim=1)
            var = scatter(square, batch, dim_size=batch_size, reduce="mean")
            wide = wide * (var + self.eps).rsqrt()[batch, None]
            return torch.addcmul(bias, wide, weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"
