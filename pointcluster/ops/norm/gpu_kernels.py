"""Normalisation of clouds on a GPU, in Triton: forward and backward, two passes over x for each.

A cloud is a slice of n x C numbers, cut into chunks (`gpu_chunks.py`), one a program. In the first
pass every chunk writes what it adds up to; in the second every program adds up the chunks of its
cloud, which are few, in their order, and goes on from there. Means and squares are those of a block
of numbers around its mean, joined with those before (Chan et al., 1979), so that no digits are
lost. Gradients of scales are written chunk by chunk and added up by torch. There are no atomics,
and results are the same each time.

Proved by Triton's interpreter on a CPU, and compiled for NVIDIA's 8.0 and 9.0; not tuned on a card.
"""

# Triton's language has no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from pointcluster.ops.gpu_chunks import chunk_of as _chunk
from pointcluster.ops.gpu_chunks import first_chunk as _first_chunk
from pointcluster.ops.gpu_chunks import slice_of as _slice

WORK = ["clouds", "points"]


@triton.jit(do_not_specialize=WORK)
def statistics(
    x, ptr, parts, clouds, points, size, channels, chunk, halvings, BN: tl.constexpr
):  # fmt: skip
    """Number, mean, and sum of squares around it, of a chunk: [G, 3]."""
    t = tl.program_id(0).to(tl.int64)
    _, begin, number = _chunk(ptr, t, clouds, size, points, chunk, halvings)
    x += begin * channels
    count, mean, square = 0.0, 0.0, 0.0
    whole = number * channels
    for start in range(0, whole, BN):
        i = start + tl.arange(0, BN)
        value = tl.load(x + i, i < whole, 0.0).to(tl.float32)
        more = tl.minimum(whole - start, BN).to(tl.float32)
        middle = tl.sum(value, 0) / more
        around = tl.where(i < whole, value - middle, 0.0)
        step, total = middle - mean, count + more
        square += tl.sum(around * around, 0) + step * step * count * more / total
        mean += step * more / total
        count = total
    tl.store(parts + t * 3, count)
    tl.store(parts + t * 3 + 1, mean)
    tl.store(parts + t * 3 + 2, square)


@triton.jit
def _chunks(ptr, cloud, size, points, chunk):
    """The first chunk of a cloud, and their number."""
    low, high = _slice(ptr, cloud, size, points)
    if ptr is None:
        first = _first_chunk(low, cloud, size, chunk)
    else:
        first = _first_chunk(low, cloud, None, chunk)
    return first, tl.cdiv(high - low, chunk).to(tl.int32), high - low


@triton.jit(do_not_specialize=WORK)
def normalise(
    x, ptr, parts, weight, bias, y, mean, scale, eps,
    clouds, points, size, channels, chunk, halvings,
    BQ: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The statistics of the chunk's cloud, of its chunks, and the chunk normalised by them."""
    t = tl.program_id(0).to(tl.int64)
    cloud, begin, number = _chunk(ptr, t, clouds, size, points, chunk, halvings)
    first, chunks, _ = _chunks(ptr, cloud, size, points, chunk)
    q = tl.arange(0, BQ)
    total, middle = tl.zeros([BQ], tl.float32), tl.zeros([BQ], tl.float32)
    for start in range(0, chunks, BQ):
        at = parts + (first + start + q) * 3
        count = tl.load(at, start + q < chunks, 0.0)
        total += count
        middle += count * tl.load(at + 1, start + q < chunks, 0.0)
    whole = tl.maximum(tl.sum(total, 0), 1.0)
    center = tl.sum(middle, 0) / whole
    square = tl.zeros([BQ], tl.float32)
    for start in range(0, chunks, BQ):
        at, there = parts + (first + start + q) * 3, start + q < chunks
        step = tl.load(at + 1, there, 0.0) - center
        square += tl.load(at + 2, there, 0.0) + tl.load(at, there, 0.0) * step * step
    inverse = 1.0 / tl.sqrt(tl.sum(square, 0) / whole + eps)
    if (t == first) & (chunks > 0):
        tl.store(mean + cloud, center)
        tl.store(scale + cloud, inverse)
    x += begin * channels
    y += begin * channels
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        w = tl.load(weight + c, c < channels, 0.0).to(tl.float32) * inverse
        b = tl.load(bias + c, c < channels, 0.0).to(tl.float32)
        for step in range(tl.cdiv(number, BP)):
            p = step * BP + tl.arange(0, BP)
            mask = (p < number)[:, None] & (c < channels)[None, :]
            at = p[:, None] * channels + c[None, :]
            value = tl.load(x + at, mask, 0.0).to(tl.float32)
            value = (value - center) * w[None, :] + b[None, :]
            tl.store(y + at, value.to(y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=WORK)
def sums(
    x, ptr, weight, mean, scale, grad, parts, sums_of_channels,
    clouds, points, size, channels, chunk, halvings, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A chunk's sums of the gradient, alone and times the normalised x: over all, and for every
    channel before it is scaled, [G, 2, C]."""
    t = tl.program_id(0).to(tl.int64)
    cloud, begin, number = _chunk(ptr, t, clouds, size, points, chunk, halvings)
    center, inverse = tl.load(mean + cloud), tl.load(scale + cloud)
    x += begin * channels
    grad += begin * channels
    alone, beside = 0.0, 0.0
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        w = tl.load(weight + c, c < channels, 0.0).to(tl.float32)
        to_weight, to_bias = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
        for step in range(tl.cdiv(number, BP)):
            p = step * BP + tl.arange(0, BP)
            mask = (p < number)[:, None] & (c < channels)[None, :]
            at = p[:, None] * channels + c[None, :]
            d = tl.load(grad + at, mask, 0.0).to(tl.float32)
            value = (tl.load(x + at, mask, 0.0).to(tl.float32) - center) * inverse
            to_bias += tl.sum(d, 0)
            to_weight += tl.sum(d * value, 0)
        alone += tl.sum(to_bias * w, 0)
        beside += tl.sum(to_weight * w, 0)
        at = sums_of_channels + t * 2 * channels + c
        tl.store(at, to_weight, c < channels)
        tl.store(at + channels, to_bias, c < channels)
    tl.store(parts + t * 3 + 1, alone)
    tl.store(parts + t * 3 + 2, beside)


@triton.jit(do_not_specialize=WORK)
def backward(
    x, ptr, weight, mean, scale, grad, parts, to_x,
    clouds, points, size, channels, chunk, halvings,
    BQ: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient for a chunk of x, by the sums of its cloud's chunks."""
    t = tl.program_id(0).to(tl.int64)
    cloud, begin, number = _chunk(ptr, t, clouds, size, points, chunk, halvings)
    first, chunks, whole = _chunks(ptr, cloud, size, points, chunk)
    center, inverse = tl.load(mean + cloud), tl.load(scale + cloud)
    q = tl.arange(0, BQ)
    alone, beside = tl.zeros([BQ], tl.float32), tl.zeros([BQ], tl.float32)
    for start in range(0, chunks, BQ):
        at = parts + (first + start + q) * 3
        alone += tl.load(at + 1, start + q < chunks, 0.0)
        beside += tl.load(at + 2, start + q < chunks, 0.0)
    count = tl.maximum(whole * channels, 1).to(tl.float32)
    less, turn = tl.sum(alone, 0) / count, tl.sum(beside, 0) / count
    x += begin * channels
    grad += begin * channels
    to_x += begin * channels
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        w = tl.load(weight + c, c < channels, 0.0).to(tl.float32)
        for step in range(tl.cdiv(number, BP)):
            p = step * BP + tl.arange(0, BP)
            mask = (p < number)[:, None] & (c < channels)[None, :]
            at = p[:, None] * channels + c[None, :]
            d = tl.load(grad + at, mask, 0.0).to(tl.float32) * w[None, :]
            value = (tl.load(x + at, mask, 0.0).to(tl.float32) - center) * inverse
            d = (d - less - value * turn) * inverse
            tl.store(to_x + at, d.to(to_x.dtype.element_ty), mask)
