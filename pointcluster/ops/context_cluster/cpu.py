"""The context cluster on the CPU: from tensors to the kernels' tables."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointcluster.ops.context_cluster.dense import lifting_pays
from pointcluster.ops.context_cluster.weights import Weights, shapes_fit
from pointcluster.ops.regions import Regions

ROWS = 256
"""Points at a time: with their features they stay in a core's own cache."""
LARGEST = 1 << 14
"""Points of a region that a thread takes by itself, and in one piece."""
PARTS = 2
"""Parts a thread that gradients of weights are added up in."""


def fits(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None = None
) -> bool:
    """Whether the shapes are those that the kernels are made for, and lifting pays.

    What does not fit is left to torch's operations, and to the errors that they raise.
    """
    fit = shapes_fit(x, regions, w, heads, residual)
    return fit and lifting_pays(w, heads, regions.num_centers)


def plan(x: Tensor, regions: Regions, w: Weights, heads: int) -> dict[str, int] | None:
    """The kernels' sizes; `None`: there are too few regions for the threads, or one is too large.

    Raises:
        ValueError: `ptr` does not cut the points into regions.
    """
    ptr, threads = regions.ptr, torch.get_num_threads()
    count = len(x) // (regions.size or 1) if ptr is None else len(ptr) - 1
    if count < threads:
        return None
    # Few enough regions at a time that every thread gets some.
    block = max(1, min(ROWS * count // len(x), count // (2 * threads)))
    if ptr is None:
        largest = regions.size or 0
        most = block * largest
    else:
        bounds = ptr.numpy()
        sizes = np.diff(bounds)
        if bounds[0] or bounds[-1] != len(x) or sizes.min() < 0:
            raise ValueError(f"ptr must rise from 0 to the number of points, {len(x)}")
        largest = int(sizes.max())
        most = int(np.diff(np.append(bounds[:-1:block], bounds[-1])).max())
    if largest > LARGEST:
        return None
    (out, width), (rows, centers, near) = w.out.shape, regions.group.shape
    return {
        "regions": count, "points": len(x), "channels": x.size(1), "out": out, "width": width,
        "heads": heads, "centers": centers, "near": near, "rows": rows,
        "shared": int(rows == 1), "block": block, "most": most,
        "slots": centers * heads, "bounds": count + 1, "wide": max(2 * width, out),
    }  # fmt: skip


def _tensors(
    x: Tensor, regions: Regions, w: Weights, index: Tensor, similarity: Tensor
) -> dict[str, Tensor | None]:
    names = ("fv", "fv_bias", "proj", "proj_bias", "alpha", "beta")
    return {
        "x": x, **dict(zip(names, w, strict=True)), "ptr": regions.starts(len(x)),
        "group": regions.group.contiguous(), "count": regions.filled.contiguous(),
        "index": index, "similarity": similarity, "wrong": index.new_zeros(1),
    }  # fmt: skip


def _check(tensors: dict[str, Tensor | None]) -> None:
    wrong = tensors["wrong"]
    if wrong is not None and wrong.item():
        raise IndexError("a centre is the mean of points that its region does not have")


def context_cluster(
    x: Tensor,
    regions: Regions,
    w: Weights,
    heads: int,
    residual: Tensor | None,
    sizes: dict[str, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pointcluster.ops.context_cluster`; `sizes` are those of :func:`plan`.

    Raises:
        IndexError: A grouping names a point that its region does not have.
    """
    from pointcluster.ops.context_cluster.cpu_kernels import forward

    y = x.new_empty(len(x), sizes["out"])
    index = torch.empty(len(x), heads, dtype=torch.int64)
    tensors = _tensors(x, regions, w, index, x.new_empty(len(x), heads))
    closed = x.new_zeros(regions.filled.shape)  # what to add to a centre's score
    if regions.closed is not None:
        closed.masked_fill_(regions.closed, -torch.inf)
    forward(sizes, **tensors, closed=closed, residual=residual, y=y)
    _check(tensors)
    similarity = tensors["similarity"]
    assert similarity is not None
    return y, index, similarity


def context_cluster_backward(
    x: Tensor,
    regions: Regions,
    w: Weights,
    heads: int,
    index: Tensor,
    similarity: Tensor,
    grad: Tensor,
    sizes: dict[str, int],
) -> tuple[Tensor, ...]:
    """The gradients for x and the weights, in their order."""
    from pointcluster.ops.context_cluster.cpu_kernels import backward

    blocks = -(-sizes["regions"] // sizes["block"])
    sizes = {**sizes, "parts": max(1, min(PARTS * torch.get_num_threads(), blocks))}
    tensors = _tensors(x, regions, w, index, similarity)
    to_x = torch.empty_like(x)
    fv, fv_bias, out, out_bias = (x.new_empty(sizes["parts"], *each.shape) for each in w[:4])
    numbers = x.new_empty(sizes["parts"], 2)
    backward(
        sizes, **tensors, grad=grad, to_x=to_x, to_fv=fv, to_fv_bias=fv_bias, to_proj=out,
        to_proj_bias=out_bias, to_numbers=numbers,
    )  # fmt: skip
    _check(tensors)
    *weights, numbers = (each.sum(dim=0) for each in (fv, fv_bias, out, out_bias, numbers))
    return to_x, *weights, numbers[:1], numbers[1:]
