"""The context cluster of features: what it is, and who works it out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointcluster.ops.backend import backend_for
from pointcluster.ops.context_cluster import cpu, dense, gpu, reference
from pointcluster.ops.context_cluster.weights import Weights
from pointcluster.ops.precision import is_autocast, no_autocast
from pointcluster.ops.regions import Regions


def context_cluster(
    x: Tensor, regions: Regions, weights: Weights, heads: int, residual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Points gather around the centres of their region and learn from their cluster.

    With $f, v$ linear maps of the features, for the points of one region and one head:

    $$ \begin{aligned}
    \text{propose}   &: & c_m &= \operatorname{mean}_{n \in G(m)} f_n, \quad
                          g_m = \operatorname{mean}_{n \in G(m)} v_n \\
    \text{assign}    &: & s_{mn} &= \sigma(\beta + \alpha \cos(c_m, f_n)), \quad
                          a(n) = \arg\max_m s_{mn} \\
    \text{aggregate} &: & h_m &= \frac{g_m + \sum_{a(n)=m} s_{mn} v_n}{1 + \sum_{a(n)=m} s_{mn}} \\
    \text{dispatch}  &: & y_n &= r_n + b + W_{\text{out}}\, s_{a(n) n}\, h_{a(n)}
    \end{aligned} $$

    with the heads' $s h$ concatenated before $W_{\text{out}}$. Of equally similar centres the
    first is taken. From "Image as Set of Points", Ma et al., ICLR 2023.

    Args:
        x: Features of the points, region by region.
        regions: Their regions, and the centres' groupings $G$.
        weights: The linear maps, and $\alpha, \beta$.
        heads: Number of heads H.
        residual: What to add the output to, $r$; it costs nothing here.

    Shapes:
        - **x:** $(N, C)$, **residual:** $(N, C')$
        - **output:** y $(N, C')$; the centre that each point was assigned to, a number below M, and
          its similarity, both $(N, H)$; only y has gradients
    """
    backend = backend_for(x, *weights, residual)
    if backend == "reference":
        return reference.context_cluster(x, regions, weights, heads, residual)
    fits = {"cpu": cpu.fits, "gpu": gpu.fits}.get(backend)
    if fits is not None and fits(x, regions, weights, heads, residual):
        if is_autocast(x):  # what it would do to the linear maps
            dtype = torch.get_autocast_dtype(x.device.type)
            fv, fv_bias, out, out_bias = (each.to(dtype) for each in weights[:4])
            x, weights = x.to(dtype), Weights(fv, fv_bias, out, out_bias, *weights[4:])
        with no_autocast(x):
            return torch.ops.pointcluster.context_cluster(x, *weights, residual, *regions, heads)
    return dense.context_cluster(x, regions, weights, heads, residual)


def gather_around(
    f: Tensor, v: Tensor, regions: Regions, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The four steps alone, for those whose linear maps are layers that want to be called.

    Shapes:
        - **f**, **v:** $(N, H, c)$
        - **output:** $(N, H, c)$, and index and similarity as :func:`context_cluster` gives them
    """
    around = reference if backend_for(f, v, alpha, beta) == "reference" else dense
    return around.gather_around(f, v, regions, alpha, beta)


# One op for torch: compilers, fake tensors and counters see it whole ------------------------------

_REGIONS = (
    "Tensor group, Tensor count, Tensor? closed, int? size, Tensor? ptr, Tensor? of, Tensor? pool, "
    "int? most"
)
_WEIGHTS = "Tensor fv, Tensor fv_bias, Tensor out, Tensor out_bias, Tensor alpha, Tensor beta"
torch.library.define(
    "pointcluster::context_cluster",
    f"(Tensor x, {_WEIGHTS}, Tensor? residual, {_REGIONS}, int heads) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "pointcluster::context_cluster_backward",
    f"(Tensor x, {_WEIGHTS}, {_REGIONS}, int heads, Tensor index, Tensor similarity, Tensor grad)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _unpacked(x: Tensor, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of the op as those of the backends' functions, all contiguous."""
    w, residual = Weights(*(each.contiguous() for each in given[:6])), given[6]
    residual = None if residual is None else residual.contiguous()
    return x.contiguous(), w, residual, Regions(*given[7:15]), given[15]


@torch.library.impl("pointcluster::context_cluster", "CPU")
def _forward(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, w, residual, regions, heads = _unpacked(x, given)
    sizes = cpu.plan(x, regions, w, heads)
    if sizes is None:
        return dense.context_cluster(x, regions, w, heads, residual)
    return cpu.context_cluster(x, regions, w, heads, residual, sizes)


def _forward_gpu(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, w, residual, regions, heads = _unpacked(x, given)
    return gpu.context_cluster(x, regions, w, heads, residual)


torch.library.impl("pointcluster::context_cluster", "CUDA", _forward_gpu)


@torch.library.impl("pointcluster::context_cluster_backward", "CPU")
def _backward(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    x, w, _, regions, heads = _unpacked(x, (*given[:6], None, *given[6:15]))
    index, similarity, grad = given[15:]
    sizes = cpu.plan(x, regions, w, heads)
    if sizes is None:
        return _differentiate(x, w, regions, heads, grad, create_graph=False)
    return cpu.context_cluster_backward(
        x, regions, w, heads, index.contiguous(), similarity.contiguous(), grad.contiguous(), sizes
    )


def _backward_gpu(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    x, w, _, regions, heads = _unpacked(x, (*given[:6], None, *given[6:15]))
    return gpu.context_cluster_backward(x, regions, w, heads, *given[15:])


torch.library.impl("pointcluster::context_cluster_backward", "CUDA", _backward_gpu)


def _differentiate(
    x: Tensor, w: Weights, regions: Regions, heads: int, grad: Tensor, *, create_graph: bool
) -> tuple[Tensor, ...]:
    """The gradients by what autograd knows: to be differentiated again, or without a kernel."""
    with torch.enable_grad():
        inputs = [x, *w]
        if not create_graph:
            inputs = [each.detach() for each in inputs]
        inputs = [each if each.requires_grad else each.requires_grad_() for each in inputs]
        y, _, _ = dense.context_cluster(inputs[0], regions, Weights(*inputs[1:]), heads)
        return torch.autograd.grad(y, inputs, grad, create_graph=create_graph)


@torch.library.register_fake("pointcluster::context_cluster")
def _forward_fake(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    residual, heads = given[6], given[15]
    index = x.new_empty(len(x), heads, dtype=torch.int64)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    similarity = x.new_empty(len(x), heads, dtype=torch.promote_types(x.dtype, torch.float32))
    return x.new_empty(len(x), given[2].size(0), dtype=dtype), index, similarity


@torch.library.register_fake("pointcluster::context_cluster_backward")
def _backward_fake(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(each) for each in (x, *given[:6]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, w, regions, heads = inputs[0], inputs[1:7], inputs[8:16], inputs[16]
    _, index, similarity = output
    ctx.mark_non_differentiable(index, similarity)
    kept = [each for each in regions if isinstance(each, Tensor)]
    ctx.which = [isinstance(each, Tensor) for each in regions]
    ctx.size, ctx.most, ctx.heads = regions[3], regions[7], heads
    ctx.save_for_backward(x, *w, index, similarity, *kept)


def _to_inputs(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    x, *rest = ctx.saved_tensors
    w, (index, similarity), kept = Weights(*rest[:6]), rest[6:8], iter(rest[8:])
    fields: list[Any] = [next(kept) if there else None for there in ctx.which]
    fields[3], fields[7] = ctx.size, ctx.most
    regions = Regions(*fields)
    if torch.is_grad_enabled():
        grads = _differentiate(x, w, regions, ctx.heads, grad, create_graph=True)
    else:
        grads = torch.ops.pointcluster.context_cluster_backward(
            x, *w, *regions, ctx.heads, index, similarity, grad
        )
    return *grads, grad if ctx.needs_input_grad[7] else None, *[None] * 9


torch.library.register_autograd("pointcluster::context_cluster", _to_inputs, setup_context=_save)


@register_flop_formula(torch.ops.pointcluster.context_cluster, get_raw=True)
def _flops(x: Tensor, *given: Any, out_val: Any = None) -> int:
    """Of the products with linear maps moved to the centres, as `dense.py` has them."""
    (out, width), regions, heads = given[2].shape, Regions(*given[7:15]), given[15]
    (n, channels), m, rows = x.shape, regions.num_centers, len(regions.starts(len(x))) - 1
    of_points = width * channels + m * channels + heads * m * (2 * channels + out) + out
    of_centers = 2 * width * channels + 2 * width * channels + width + width * out
    return 2 * (n * of_points + rows * m * of_centers)


@register_flop_formula(torch.ops.pointcluster.context_cluster_backward, get_raw=True)
def _backward_flops(x: Tensor, *given: Any, out_val: Any = None) -> int:
    """Each product has two on the way back, but for the means, whose weights do not learn."""
    means = 2 * len(x) * given[6].size(1) * x.size(1)
    return 2 * _flops(x, *given[:6], None, *given[6:]) - means
