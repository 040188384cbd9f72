"""The MLP on the CPU: from tensors to the kernels' tables."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 128
"""Rows at a time: with their hidden features they stay in a core's own cache."""
PARTS = 2
"""Parts a thread that gradients of weights are added up in."""


def fits(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None
) -> bool:
    """Whether the shapes are those of an MLP; else torch's operations raise their own errors."""
    if x.dim() != 2 or w1.dim() != 2 or w2.dim() != 2:
        return False
    (rows, channels), (out, hidden) = x.shape, w2.shape
    return (
        w1.shape == (hidden, channels)
        and b1.shape == (hidden,)
        and b2.shape == (out,)
        and (residual is None or residual.shape == (rows, out))
    )


def _sizes(x: Tensor, w2: Tensor) -> dict[str, int]:
    threads, (rows, channels), (out, hidden) = torch.get_num_threads(), x.shape, w2.shape
    parts = -(-rows // ROWS)
    parts = -(-parts // threads) * threads  # so that threads get equally many
    step = max(8, -(-rows // (8 * parts)) * 8)
    parts = max(1, min(PARTS * threads, -(-rows // step)))
    return {
        "rows": rows, "channels": channels, "hidden": hidden, "out": out, "step": step,
        "parts": parts,
    }  # fmt: skip


def mlp(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None
) -> Tensor:
    """See :func:`pointcluster.ops.mlp`."""
    from pointcluster.ops.mlp.cpu_kernels import forward

    y = x.new_empty(len(x), len(w2))
    forward(_sizes(x, w2), x=x, w1=w1, b1=b1, w2=w2, b2=b2, residual=residual, y=y)
    return y


def mlp_backward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients for x, w1, b1, w2 and b2."""
    from pointcluster.ops.mlp.cpu_kernels import backward

    sizes = _sizes(x, w2)
    to_x = torch.empty_like(x)
    to_w1, to_b1, to_w2 = (x.new_empty(sizes["parts"], *w.shape) for w in (w1, b1, w2))
    backward(
        sizes, x=x, w1=w1, b1=b1, w2=w2, grad=grad, to_x=to_x, to_w1=to_w1, to_b1=to_b1,
        to_w2=to_w2,
    )  # fmt: skip
    return to_x, to_w1.sum(dim=0), to_b1.sum(dim=0), to_w2.sum(dim=0), grad.sum(dim=0)
