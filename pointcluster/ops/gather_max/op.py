"""The maximum over gathered points: what it is, and who works it out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointcluster.ops.backend import backend_for
from pointcluster.ops.gather_max import cpu, gpu, reference


def gather_max(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> Tensor:
    r"""The maximum over each anchor's points: $y_{ac} = \max_j\, x_{n_j c} + (W r_{aj})_c$.

    Either sum may be left out. In kernels nothing is there for all anchors, neighbours and channels
    at once. From "PointNet++", Qi et al., NeurIPS 2017.

    Shapes:
        - **x:** $(N, C)$, **relative** ($r$): $(M, k, h)$, **weight** ($W$): $(C, h)$,
          **index** ($n$): $(M, k)$
        - **output:** $(M, C)$

    Raises:
        IndexError: There is no such point (on a GPU, which is not asked, what gathers it is no
            number).
    """
    fits = {"cpu": cpu.fits, "gpu": gpu.fits}.get(backend_for(x, relative, weight))
    if fits is not None and fits(x, relative, weight, index):
        return torch.ops.pointcluster.gather_max(x, relative, weight, index)[0]
    return reference.gather_max(x, relative, weight, index)


# One op for torch: compilers, fake tensors and counters see it whole ------------------------------

_INPUTS = "Tensor? relative, Tensor? weight, Tensor index"
torch.library.define("pointcluster::gather_max", f"(Tensor? x, {_INPUTS}) -> (Tensor, Tensor)")
torch.library.define(
    "pointcluster::gather_max_backward",
    f"(int? points, {_INPUTS}, Tensor which, Tensor grad, bool[3] wanted) -> Tensor[]",
)


def _dense(*tensors: Tensor | None) -> list[Any]:
    return [each if each is None else each.contiguous() for each in tensors]


@torch.library.impl("pointcluster::gather_max", "CPU")
def _forward(*given: Tensor | None) -> tuple[Tensor, Tensor]:
    return cpu.gather_max(*_dense(*given))


@torch.library.impl("pointcluster::gather_max_backward", "CPU")
def _backward(points: int | None, *given: Any) -> list[Tensor]:
    relative, weight, index, which, grad = _dense(*given[:5])
    arguments = relative, weight, index, which, grad, tuple(given[5])
    grads = cpu.gather_max_backward(points, *arguments)
    return [each for each in grads if each is not None]


def _forward_gpu(*given: Tensor | None) -> tuple[Tensor, Tensor]:
    return gpu.gather_max(*_dense(*given))


def _backward_gpu(points: int | None, *given: Any) -> list[Tensor]:
    relative, weight, index, which, grad = _dense(*given[:5])
    arguments = relative, weight, index, which, grad, tuple(given[5])
    grads = gpu.gather_max_backward(points, *arguments)
    return [grad for grad in grads if grad is not None]


torch.library.impl("pointcluster::gather_max", "CUDA", _forward_gpu)
torch.library.impl("pointcluster::gather_max_backward", "CUDA", _backward_gpu)


@torch.library.register_fake("pointcluster::gather_max")
def _forward_fake(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    like = weight if x is None else x
    assert like is not None
    y = like.new_empty(len(index), like.size(0) if x is None else like.size(1))
    return y, torch.empty_like(y, dtype=torch.int32)


@torch.library.register_fake("pointcluster::gather_max_backward")
def _backward_fake(
    points: int | None,
    relative: Tensor | None,
    weight: Tensor | None,
    index: Tensor,
    which: Tensor,
    grad: Tensor,
    wanted: list[bool],
) -> list[Tensor]:
    to_x = [grad.new_empty(points, grad.size(1))] if wanted[0] and points is not None else []
    rest = zip((relative, weight), wanted[1:], strict=True)
    return to_x + [torch.empty_like(each) for each, asked in rest if asked and each is not None]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, relative, weight, index = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.points = None if x is None else len(x)
    ctx.save_for_backward(relative, weight, index, output[1])


def _to_inputs(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    relative, weight, index, which = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    if torch.is_grad_enabled():  # to be differentiated again: by what autograd knows
        return *_spread(ctx.points, relative, weight, index, which.long(), grad, wanted), None
    found = iter(
        torch.ops.pointcluster.gather_max_backward(
            ctx.points, relative, weight, index, which, grad, wanted
        )
    )
    return *(next(found) if asked else None for asked in wanted), None


def _spread(
    points: int | None,
    relative: Tensor | None,
    weight: Tensor | None,
    index: Tensor,
    which: Tensor,
    grad: Tensor,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients by torch's operations; which neighbour has the maximum does not change."""
    to_x = to_relative = to_weight = None
    if wanted[0] and points is not None:
        to_x = grad.new_zeros(points, grad.size(1)).scatter_add(0, index.gather(1, which), grad)
    if relative is not None and weight is not None:
        spread = grad.new_zeros(*index.shape, grad.size(1))  # [M, k, C]
        spread = spread.scatter(1, which[:, None], grad[:, None])
        to_relative = spread @ weight if wanted[1] else None
        if wanted[2]:
            to_weight = spread.flatten(0, 1).t() @ relative.flatten(0, 1)
    return to_x, to_relative, to_weight


torch.library.register_autograd("pointcluster::gather_max", _to_inputs, setup_context=_save)


@register_flop_formula(torch.ops.pointcluster.gather_max, get_raw=True)
def _flops(
    x: Any, relative: Tensor | None, weight: Tensor | None, index: Tensor, *_: Any,
    out_val: Any = None,
) -> int:  # fmt: skip
    return 0 if relative is None or weight is None else 2 * index.numel() * weight.numel()


@register_flop_formula(torch.ops.pointcluster.gather_max_backward, get_raw=True)
def _backward_flops(points: Any, *given: Any, out_val: Any = None) -> int:
    return sum(given[-1][1:]) * _flops(None, *given[:3])
