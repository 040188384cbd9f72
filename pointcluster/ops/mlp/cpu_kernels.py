"""The MLP on the CPU: some rows at a time, their hidden features in a core's own cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointcluster.ops.launch import Kernel, Table
from pointcluster.ops.loops import (
    EXACT,
    HALF,
    ZERO,
    N,
    T,
    carray,
    count_up,
    exp,
    inlined,
    normal,
    product,
    start_rows,
)  # fmt: skip

SIZES = "rows channels hidden out step"
ARRAYS = {
    "x": "float32 rows channels",
    "w1": "float32 hidden channels",
    "b1": "float32 hidden",
    "w2": "float32 out hidden",
}
FORWARD = Table(
    SIZES,
    {**ARRAYS, "b2": "float32 out", "residual": "?float32 rows out", "y": "float32 rows out"},
    {"h": "float32 step hidden"},
)
BACKWARD = Table(
    f"{SIZES} parts",
    {**ARRAYS, "grad": "float32 rows out", "to_x": "float32 rows channels",
     "to_w1": "float32 parts hidden channels", "to_b1": "float32 parts hidden",
     "to_w2": "float32 parts out hidden"},
    {"h": "float32 step hidden", "slope": "float32 step hidden", "sums": "float32 hidden"},
)  # fmt: skip
open_forward, open_backward = FORWARD.opened, BACKWARD.opened
ROOT = np.float32(0.3989422804014327)


@inlined(EXACT)
def gelu(h: np.ndarray, bias: np.ndarray) -> None:
    """GELU of `h + bias`, in place."""
    for n in range(len(h)):
        row = h[n]
        for i in range(len(row)):
            x = row[i] + bias[i]
            row[i] = x * normal(x)


@inlined(EXACT)
def gelu_backward(h: np.ndarray, bias: np.ndarray, d: np.ndarray, to_bias: np.ndarray) -> None:
    """GELU of `h + bias` in place, and `d` times its slope there; this added up over rows."""
    for n in range(len(h)):
        row, slope = h[n], d[n]
        for i in range(len(row)):
            x = row[i] + bias[i]
            phi = normal(x)
            g = slope[i] * (phi + x * ROOT * exp(-HALF * x * x))
            row[i] = x * phi
            slope[i] = g
            to_bias[i] += g


def forward_kernel(pointer: Any) -> None:
    """`y = residual + w2 gelu(w1 x + b1) + b2`."""
    a = carray(pointer, (1,))[0]
    v = open_forward(a)
    while True:
        begin = count_up(a.counter) * a.step
        if begin >= a.rows:
            break
        end = min(begin + a.step, a.rows)
        h, y = v.h[: end - begin], v.y[begin:end]
        product(a.gemm, v.x[begin:end], N, v.w1, T, 0.0, h)
        gelu(h, v.b1)
        start_rows(y, v.residual[begin:end], v.b2)
        product(a.gemm, h, N, v.w2, T, 1.0, y)


def backward_kernel(pointer: Any) -> None:
    """Its gradients. What belongs to weights is added up part by part, each in its own place."""
    a = carray(pointer, (1,))[0]
    v = open_backward(a)
    blocks = (a.rows + a.step - 1) // a.step
    while True:
        part = count_up(a.counter)
        if part >= a.parts:
            break
        to_w1, to_b1, to_w2 = v.to_w1[part], v.to_b1[part], v.to_w2[part]
        to_b1[:] = ZERO
        fresh = 0.0
        for block in range(blocks * part // a.parts, blocks * (part + 1) // a.parts):
            begin, end = block * a.step, min(block * a.step + a.step, a.rows)
            x, grad = v.x[begin:end], v.grad[begin:end]
            h, slope = v.h[: end - begin], v.slope[: end - begin]
            product(a.gemm, x, N, v.w1, T, 0.0, h)
            product(a.gemm, grad, N, v.w2, N, 0.0, slope)
            v.sums[:] = ZERO  # block by block, for their precision
            gelu_backward(h, v.b1, slope, v.sums)
            for i in range(a.hidden):
                to_b1[i] += v.sums[i]
            product(a.gemm, grad, T, h, N, fresh, to_w2)
            product(a.gemm, slope, T, x, N, fresh, to_w1)
            product(a.gemm, slope, N, v.w1, N, 0.0, v.to_x[begin:end])
            fresh = 1.0


forward, backward = Kernel(FORWARD, forward_kernel), Kernel(BACKWARD, backward_kernel)
