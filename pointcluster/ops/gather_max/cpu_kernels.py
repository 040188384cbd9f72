"""The maximum over gathered points on the CPU, some anchors at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointcluster.ops.launch import Kernel, Table
from pointcluster.ops.loops import (
    EXACT,
    ONE,
    ZERO,
    N,
    T,
    add_times,
    carray,
    count_up,
    inlined,
    product,
)  # fmt: skip

SIZES = "anchors near points channels inner step"
FORWARD = Table(
    SIZES,
    {"x": "?float32 points channels", "relative": "?float32 anchors near inner",
     "weight": "?float32 channels inner", "index": "int64 anchors near",
     "y": "float32 anchors channels", "which": "int32 anchors channels", "wrong": "int64 1"},
    {"placed": "float32 step*near channels", "row": "float32 channels"},
)  # fmt: skip
# wide: channels whose gradients a thread adds up at a time, a line of a cache at least.
BACKWARD = Table(
    f"{SIZES} wide",
    {"relative": "?float32 anchors near inner", "weight": "?float32 channels inner",
     "index": "int64 anchors near", "which": "int32 anchors channels",
     "grad": "float32 anchors channels", "to_x": "?float32 points channels",
     "to_relative": "?float32 anchors near inner", "to_weight": "?float32 channels inner",
     "wrong": "int64 1"},
    {"sums": "float32 wide inner"},
)  # fmt: skip
open_forward, open_backward = FORWARD.opened, BACKWARD.opened


@inlined(EXACT)
def add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Write a sum elsewhere."""
    for i in range(len(out)):
        out[i] = a[i] + b[i]


@inlined(EXACT)
def keep_higher(value: np.ndarray, slot: int, best: np.ndarray, which: np.ndarray) -> None:
    """Where a value is higher than the best so far, or none: it is the best."""
    for i in range(len(best)):
        higher = (value[i] > best[i]) | (value[i] != value[i])
        best[i] = value[i] if higher else best[i]
        which[i] = np.int32(slot) if higher else which[i]


def forward_kernel(pointer: Any) -> None:
    """The maximum of each channel, and the neighbour that has it."""
    a = carray(pointer, (1,))[0]
    v = open_forward(a)
    while True:
        begin = count_up(a.counter) * a.step
        if begin >= a.anchors:
            break
        end = min(begin + a.step, a.anchors)
        if len(v.relative):
            rows = (end - begin) * a.near
            near = v.relative[begin:end].reshape(rows, a.inner)
            product(a.gemm, near, N, v.weight, T, 0.0, v.placed[:rows])
        for m in range(begin, end):
            best, which = v.y[m], v.which[m]
            best[:] = np.float32(-np.inf)
            which[:] = 0
            for j in range(a.near):
                n = v.index[m, j]
                if a.x and (n < 0 or n >= a.points):  # memory beyond would be read
                    v.wrong[0] = 1
                    break
                if len(v.relative):
                    value = v.placed[(m - begin) * a.near + j]
                    if a.x:
                        add(v.x[n], value, v.row)
                        keep_higher(v.row, j, best, which)
                    else:
                        keep_higher(value, j, best, which)
                else:
                    keep_higher(v.x[n], j, best, which)


def backward_kernel(pointer: Any) -> None:
    """Its gradients: first parts of the anchors for `relative`, then of the channels for others."""
    a = carray(pointer, (1,))[0]
    v = open_backward(a)
    first = (a.anchors + a.step - 1) // a.step if a.to_relative else 0
    while True:
        part = count_up(a.counter)
        if part < first:
            for m in range(part * a.step, min(part * a.step + a.step, a.anchors)):
                v.to_relative[m] = ZERO
                for c in range(a.channels):
                    add_times(v.grad[m, c], v.weight[c], v.to_relative[m, v.which[m, c]])
            continue
        begin = (part - first) * a.wide
        if begin >= a.channels:
            break
        end = min(begin + a.wide, a.channels)
        if a.to_x:
            v.to_x[:, begin:end] = ZERO
        if a.to_weight:
            v.to_weight[begin:end] = ZERO
        for block in range(0, a.anchors, a.step):  # sums block by block, for their precision
            v.sums[:] = ZERO
            for m in range(block, min(block + a.step, a.anchors)):
                for c in range(begin, end):
                    j = v.which[m, c]
                    if a.to_x:
                        n = v.index[m, j]
                        if n < 0 or n >= a.points:
                            v.wrong[0] = 1
                            continue
                        v.to_x[n, c] += v.grad[m, c]
                    if a.to_weight:
                        add_times(v.grad[m, c], v.relative[m, j], v.sums[c - begin])
            if a.to_weight:
                for c in range(begin, end):
                    add_times(ONE, v.sums[c - begin], v.to_weight[c])


forward, backward = Kernel(FORWARD, forward_kernel), Kernel(BACKWARD, backward_kernel)
