"""The MLP, written to be read. Every backend gives this answer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mlp(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None = None
) -> Tensor:
    """See :func:`pointcluster.ops.mlp`. Also the torch path: compilers fuse it by themselves."""
    y = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)
    return y if residual is None else residual + y
