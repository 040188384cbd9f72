"""Which numbers are worked out in which precision."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8
"""The least length of a vector."""


def at_least_float32(x: Tensor) -> Tensor:
    """Which centre wins is decided in float32 where features are half as wide."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def length(x: Tensor) -> Tensor:
    """The length of vectors along the last axis, and never zero."""
    return torch.linalg.vector_norm(x, dim=-1).clamp_min(EPS)
