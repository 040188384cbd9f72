"""Which numbers are worked out in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

EPS = 1e-8
"""The least length of a vector."""


def no_autocast(x: Tensor) -> AbstractContextManager:
    """A place in which nothing is worked out in half precision, on the device of a tensor."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, say
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def is_autocast(x: Tensor) -> bool:
    """Whether products are worked out in half precision now, on the device of a tensor."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def at_least_float32(x: Tensor) -> Tensor:
    """Which centre wins is decided in float32 where features are half as wide."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def length(x: Tensor) -> Tensor:
    """The length of vectors along the last axis, and never zero."""
    return torch.linalg.vector_norm(x, dim=-1).clamp_min(EPS)
