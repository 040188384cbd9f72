"""Points of groups, some groups at a time, and the sums that go back to them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

ELEMENTS, ELEMENTS_OF_DEVICE = 1 << 20, 1 << 26
"""Features at a time: on a CPU so few that they stay in its cache, elsewhere many."""


def chunks(groups: int, width: int, device: torch.device) -> Iterator[slice]:
    """Groups some at a time, for groups of `width` features."""
    most = ELEMENTS if device.type == "cpu" else ELEMENTS_OF_DEVICE
    parts = max(1, -(-groups * width // most))
    step = max(1, -(-groups // parts))
    for start in range(0, groups, step):
        yield slice(start, min(groups, start + step))


def gathered(u: Tensor, a: Tensor, index: Tensor, g: slice) -> Tensor:
    """What the points of some groups begin with, $u_n + a_m$. [R, k, C]"""
    part = index[g]
    rows = u.index_select(0, part.reshape(-1)).view(*part.shape, u.size(1))
    return rows.add_(a[g, None])


def sum_by(index: Tensor, rows: Tensor, size: int, row: Tensor | None = None) -> Tensor:
    """Sum rows of the same index: what a gather is going back.

    As sums over sorted bags; adding row by row takes many times as long on a CPU.

    Args:
        index: Where each row goes.
        rows: The rows.
        size: Number of sums.
        row: Which row goes there, if not one after another.
    """
    order = index.argsort(stable=True)
    offsets = F.pad(torch.bincount(index, minlength=size).cumsum(0), (1, 0))[:-1]
    order = order if row is None else row[order]
    return F.embedding_bag(order, rows, offsets, mode="sum")
