"""The maximum over gathered points, written to be read. Every backend gives this answer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gather_max(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> Tensor:
    """See :func:`pointcluster.ops.gather_max`. Also the torch path."""
    value: Tensor | None = None
    if x is not None:
        value = x.index_select(0, index.flatten()).view(*index.shape, x.size(1))  # [M, k, C]
    if relative is not None and weight is not None:
        seen = F.linear(relative, weight)
        value = seen if value is None else value + seen
    assert value is not None
    return value.max(dim=1).values
