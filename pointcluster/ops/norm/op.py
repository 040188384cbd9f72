"""Normalisation of clouds: what it is, and who works it out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointcluster.ops.backend import backend_for
from pointcluster.ops.norm import gpu, reference


def cloud_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    batch: Tensor | None,
    batch_size: int,
    cloud_size: int | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalise each cloud over all its points and channels, then scale every channel.

    $$ y_{nc} = \gamma_c \frac{x_{nc} - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta_c $$

    with $\mu, \sigma^2$ over the points *and* channels of the point's cloud, in float32 where
    features are half as wide. ("Group Normalization", Wu and He, ECCV 2018, with one group.)

    Args:
        x: Features of the points, cloud by cloud.
        weight: Scale of every channel, $\gamma$.
        bias: What is added to it, $\beta$.
        batch: Sorted cloud index of each point; `None` with `cloud_size`.
        batch_size: Number of clouds B.
        cloud_size: Points of a cloud, where all have as many.
        eps: Added to the variance.

    Shapes:
        - **x:** $(N, C)$, **weight**, **bias:** $(C)$, **batch:** $(N)$
        - **output:** $(N, C)$

    Raises:
        ValueError: There is neither `batch` nor `cloud_size`.
    """
    given = x, weight, bias, batch, batch_size, cloud_size, eps
    if backend_for(x, weight, bias) == "gpu" and gpu.fits(*given):
        return torch.ops.pointcluster.cloud_norm(*given)[0]
    return reference.cloud_norm(*given)


# One op for torch: compilers, fake tensors and counters see it whole ------------------------------

_CLOUDS = "Tensor? batch, int batch_size, int? cloud_size"
torch.library.define(
    "pointcluster::cloud_norm",
    f"(Tensor x, Tensor weight, Tensor bias, {_CLOUDS}, float eps) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "pointcluster::cloud_norm_backward",
    f"(Tensor x, Tensor weight, Tensor mean, Tensor scale, {_CLOUDS}, Tensor grad)"
    " -> (Tensor, Tensor, Tensor)",
)


def _forward_gpu(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    return gpu.cloud_norm(x.contiguous(), *given)


def _backward_gpu(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight, mean, scale, batch, batch_size, cloud_size, grad = given
    clouds = batch, batch_size, cloud_size
    return gpu.cloud_norm_backward(x.contiguous(), weight, mean, scale, *clouds, grad.contiguous())


torch.library.impl("pointcluster::cloud_norm", "CUDA", _forward_gpu)
torch.library.impl("pointcluster::cloud_norm_backward", "CUDA", _backward_gpu)


@torch.library.register_fake("pointcluster::cloud_norm")
def _forward_fake(x: Tensor, weight: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean, scale = (x.new_empty(given[2], dtype=torch.float32) for _ in range(2))
    return x.new_empty(x.shape), mean, scale


@torch.library.register_fake("pointcluster::cloud_norm_backward")
def _backward_fake(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, batch, ctx.batch_size, ctx.cloud_size, ctx.eps = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, weight, bias, batch, *output[1:])


def _to_inputs(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    x, weight, bias, batch, mean, scale = ctx.saved_tensors
    clouds = batch, ctx.batch_size, ctx.cloud_size
    if torch.is_grad_enabled():  # to be differentiated again: by what autograd knows
        inputs = [t if t.requires_grad else t.requires_grad_() for t in (x, weight, bias)]
        y = reference.cloud_norm(inputs[0], inputs[1], inputs[2], *clouds, ctx.eps)
        grads = torch.autograd.grad(y, inputs, grad, create_graph=True)
    else:
        given = x, weight, mean, scale, *clouds, grad
        grads = torch.ops.pointcluster.cloud_norm_backward(*given)
    return *grads, *[None] * 4


torch.library.register_autograd("pointcluster::cloud_norm", _to_inputs, setup_context=_save)
