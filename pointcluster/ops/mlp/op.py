"""The MLP of features: what it is, and who works it out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointcluster.ops.backend import backend_for
from pointcluster.ops.mlp import cpu, reference


def mlp(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, residual: Tensor | None = None
) -> Tensor:
    r"""Two linear maps with GELU between: $y = r + W_2 \operatorname{gelu}(W_1 x + b_1) + b_2$.

    On a CPU the hidden features are never there for all rows, nor kept for the way back: that
    costs less time than writing them to memory, and none of it.

    Shapes:
        - **x:** $(N, C)$, **w1:** $(H, C)$, **b1:** $(H)$, **w2:** $(C', H)$, **b2:** $(C')$,
          **residual** ($r$): $(N, C')$
        - **output:** $(N, C')$
    """
    if backend_for(x, w1, b1, w2, b2, residual) == "cpu" and cpu.fits(x, w1, b1, w2, b2, residual):
        return torch.ops.pointcluster.mlp(x, w1, b1, w2, b2, residual)
    return reference.mlp(x, w1, b1, w2, b2, residual)


# One op for torch: compilers, fake tensors and counters see it whole ------------------------------

_WEIGHTS = "Tensor w1, Tensor b1, Tensor w2, Tensor b2"
torch.library.define("pointcluster::mlp", f"(Tensor x, {_WEIGHTS}, Tensor? residual) -> Tensor")
torch.library.define(
    "pointcluster::mlp_backward",
    "(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor grad)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("pointcluster::mlp", "CPU")
def _forward(*given: Tensor | None) -> Tensor:
    dense: list[Any] = [each if each is None else each.contiguous() for each in given]
    return cpu.mlp(*dense)


@torch.library.impl("pointcluster::mlp_backward", "CPU")
def _backward(*given: Tensor) -> tuple[Tensor, ...]:
    return cpu.mlp_backward(*(each.contiguous() for each in given))


@torch.library.register_fake("pointcluster::mlp")
def _forward_fake(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, *_: Any) -> Tensor:
    return x.new_empty(len(x), len(w2))


@torch.library.register_fake("pointcluster::mlp_backward")
def _backward_fake(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return *(torch.empty_like(each) for each in (x, w1, b1, w2)), w2.new_empty(len(w2))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _to_inputs(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    if torch.is_grad_enabled():  # to be differentiated again: by what autograd knows
        inputs = [each if each.requires_grad else each.requires_grad_() for each in inputs]
        grads = torch.autograd.grad(reference.mlp(*inputs), inputs, grad, create_graph=True)
    else:
        grads = torch.ops.pointcluster.mlp_backward(*inputs[:4], grad)
    return *grads, grad if ctx.needs_input_grad[5] else None


torch.library.register_autograd("pointcluster::mlp", _to_inputs, setup_context=_save)


@register_flop_formula(torch.ops.pointcluster.mlp, get_raw=True)
def _flops(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, *_: Any, out_val: Any = None) -> int:
    return 2 * len(x) * (w1.numel() + w2.numel())


@register_flop_formula(torch.ops.pointcluster.mlp_backward, get_raw=True)
def _backward_flops(x: Tensor, *given: Any, out_val: Any = None) -> int:
    return 2 * _flops(x, *given)
