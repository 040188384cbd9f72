"""The maximum over gathered points on a GPU, in Triton: forward and backward.

Forward, a program takes some anchors and channels, [BA, BC], and goes through the neighbours: what
each one brings is gathered, or worked out, compared, and forgotten. All of it is float32.

Backward, what comes to a point is the sum over the anchors that took it for their maximum. The host
sorts the pairs of anchors and neighbours by their point; then a program takes some points and
channels and adds up each point's pairs in the order of the anchors. Weights' gradients are added up
in parts, which torch adds up. So there are no atomics, and results are the same each time.

Proved by Triton's interpreter on a CPU, and compiled for NVIDIA's 8.0 and 9.0; not tuned on a card.
"""

# Triton's language has no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["points", "anchors"])
def forward(
    x, relative, weight, index, y, which, points, anchors, channels, near, inner,
    BA: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The maximum and the neighbour that has it, of equals the first; what is no number wins, and a
    point that is not there is none."""
    a = tl.program_id(0).to(tl.int64) * BA + tl.arange(0, BA)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    real, within = a < anchors, c < channels
    mask = real[:, None] & within[None, :]
    best = tl.full([BA, BC], float("-inf"), tl.float32)
    chosen = tl.zeros([BA, BC], tl.int32)
    for j in range(near):
        value = tl.zeros([BA, BC], tl.float32)
        if x is not None:
            n = tl.load(index + a * near + j, real, 0)
            there = (n >= 0) & (n < points)
            at = x + n[:, None] * channels + c[None, :]
            value = tl.load(at, mask & there[:, None], float("nan")).to(tl.float32)
        if relative is not None:
            for i in range(inner):
                r = tl.load(relative + (a * near + j) * inner + i, real, 0.0).to(tl.float32)
                w = tl.load(weight + c * inner + i, within, 0.0).to(tl.float32)
                value += r[:, None] * w[None, :]
        better = (value > best) | ((value != value) & (best == best))
        best, chosen = tl.where(better, value, best), tl.where(better, j, chosen)
    at = a[:, None] * channels + c[None, :]
    tl.store(y + at, best.to(y.dtype.element_ty), mask)
    tl.store(which + at, chosen, mask)


@triton.jit(do_not_specialize=["points"])
def to_points(
    pairs, ptr, which, grad, out, points, channels, near, BN: tl.constexpr, BC: tl.constexpr
):
    """The gradients for x: `pairs` are anchors times `near` plus neighbour, point by point."""
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    real, within = n < points, c < channels
    begin = tl.load(ptr + n, real, 0)
    number = tl.load(ptr + n + 1, real, 0) - begin
    total = tl.zeros([BN, BC], tl.float32)
    for e in range(tl.max(number, 0).to(tl.int32)):
        there = e < number
        pair = tl.load(pairs + begin + e, there, 0)
        at = (pair // near)[:, None] * channels + c[None, :]
        mask = there[:, None] & within[None, :]
        hit = tl.load(which + at, mask, -1) == (pair % near)[:, None]
        total += tl.load(grad + at, mask & hit, 0.0).to(tl.float32)
    at = n[:, None] * channels + c[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), real[:, None] & within[None, :])


@triton.jit(do_not_specialize=["anchors", "chunk"])
def to_weight(
    relative, which, grad, parts, anchors, channels, near, inner, chunk,
    BC: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """A share of the gradients for the weight, of `chunk` anchors: [parts, C, h]."""
    part = tl.program_id(0).to(tl.int64)
    c, i = tl.program_id(1) * BC + tl.arange(0, BC), tl.arange(0, BI)
    within, mask = c < channels, (c < channels)[:, None] & (i < inner)[None, :]
    total = tl.zeros([BC, BI], tl.float32)
    for step in range(chunk):
        a = part * chunk + step
        real = within & (a < anchors)
        chosen = tl.load(which + a * channels + c, real, 0)
        d = tl.load(grad + a * channels + c, real, 0.0).to(tl.float32)
        at = relative + ((a * near + chosen) * inner)[:, None] + i[None, :]
        total += d[:, None] * tl.load(at, mask & real[:, None], 0.0).to(tl.float32)
    tl.store(parts + (part * channels + c)[:, None] * inner + i[None, :], total, mask)


@triton.jit
def to_relative(
    weight, which, grad, out, channels, near, inner, BK: tl.constexpr, BC: tl.constexpr
):
    """The gradients for the relative positions of one anchor."""
    a = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BK)
    for i in range(inner):
        total = tl.zeros([BK], tl.float32)
        for start in range(0, channels, BC):
            c = start + tl.arange(0, BC)
            within = c < channels
            chosen = tl.load(which + a * channels + c, within, -1)
            d = tl.load(grad + a * channels + c, within, 0.0).to(tl.float32)
            d *= tl.load(weight + c * inner + i, within, 0.0).to(tl.float32)
            total += tl.sum(tl.where(j[:, None] == chosen[None, :], d[None, :], 0.0), 1)
        tl.store(out + (a * near + j) * inner + i, total.to(out.dtype.element_ty), j < near)
