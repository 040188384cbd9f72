"""How far groups spread about their anchors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointcluster.nn.group_rows import sum_by


class GroupSpread(torch.autograd.Function):
    r"""The standard deviation of $x_{n_{mj}} - x_{a_m}$ over all groups and channels of a cloud.

    Two passes over the groups, slot by slot, so that nothing cancels and no tensor of groups x k x
    channels exists. Arguments are `x` (N, C), `anchor` (R), `index` (R, k), `batch` (R) and the
    number of clouds B. Gives (B).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, index: Tensor, batch: Tensor, batch_size: int
    ) -> Tensor:
        here = x[anchor]
        total = torch.zeros_like(here)
        square = here.new_zeros(len(here), dtype=torch.float64)
        for slot in index.unbind(1):
            d = x.index_select(0, slot).sub_(here)
            total += d
            square += torch.linalg.vector_norm(d, dim=1).double().square()
        groups = torch.bincount(batch, minlength=batch_size)
        count = groups.double() * index.size(1) * x.size(1)
        mean, second = square.new_zeros(2, batch_size)
        mean = mean.index_add(0, batch, total.sum(dim=1).double()) / count.clamp(min=1)
        second = second.index_add(0, batch, square)
        freedom = (count - 1).clamp(min=1)
        std = ((second - count * mean.square()).clamp(min=0) / freedom).sqrt()
        ctx.save_for_backward(x, anchor, index, batch, total, mean, freedom, std)
        return std.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "groups of points have no second derivatives: differentiate without create_graph"
            )
        x, anchor, index, batch, total, mean, freedom, std = ctx.saved_tensors
        factor = torch.where(std > 0, grad / (freedom * std), 0)[batch].to(x.dtype)[:, None]  # [R]
        middle = mean[batch].to(x.dtype)[:, None]
        # Of each pair, factor * (x_n - x_a - mean) goes to the point, and its negative to the
        # anchor.
        group = torch.arange(len(index), device=x.device).repeat_interleave(index.size(1))
        pair = torch.cat([factor * (x[anchor] + middle), factor], dim=1)
        sums = sum_by(index.reshape(-1), pair, len(x), group)
        to_x = x * sums[:, -1:] - sums[:, :-1]
        to_anchor = factor * (total - index.size(1) * middle)
        return to_x.index_add_(0, anchor, -to_anchor), None, None, None, None
