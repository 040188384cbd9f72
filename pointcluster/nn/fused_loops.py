"""Blocks of rows through several layers at once, as loops that Numba compiles.

Loaded only where Numba is installed. Each kernel takes one address, of a list of addresses and
sizes, and is called by every thread of a team; the threads take blocks, by a counter they share,
until none is left. Between two layers a block stays in the thread's own cache. Matrices are stored
row by row, in float32; their products are those of the BLAS that torch brings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# The compiler may fuse a product with a sum, and in sums may change the order; NaN stays NaN.
_EXACT = {"contract", "nsz"}
_SUMS = {"contract", "nsz", "reassoc"}


def _inlined(fastmath: set[str]) -> Callable[[Callable[..., Any]], Any]:
    return njit(fastmath=fastmath, error_model="numpy")


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile for a team's threads; keep the result on disk where there is a place for it."""
    signature = types.void(types.CPointer(types.int64))
    options: dict[str, Any] = {"fastmath": _EXACT, "error_model": "numpy"}
    try:
        return cfunc(signature, cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cfunc(signature, **options)(function)


# What Numba lacks ---------------------------------------------------------------------------------


@intrinsic
def _floats(_: Any, address: Any) -> Any:
    """The address as one of float32 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _longs(_: Any, address: Any) -> Any:
    """The address as one of int64 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def _bits(_: Any, value: Any) -> Any:
    """A float32 number's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def _from_bits(_: Any, value: Any) -> Any:
    """The float32 number of these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@intrinsic
def _next(_: Any, address: Any) -> Any:
    """Count a shared number up, and give what it was: no two threads get the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        long = context.get_value_type(types.int64)
        place = builder.inttoptr(arguments[0], long.as_pointer())
        return builder.atomic_rmw("add", place, long(1), "monotonic")

    return types.int64(types.int64), generate


@intrinsic
def _sgemm(
    _: Any, call: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
    beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """BLAS's product at the address `call`; its matrices are stored column by column."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = context.get_value_type(types.voidptr)
        call, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments

        def place(value: Any) -> Any:  # Fortran wants addresses; a long serves for an int, too
            return builder.bitcast(cgutils.alloca_once_value(builder, value), byte)

        one = context.get_constant(types.float32, 1.0)
        values = [
            *map(place, (ta, tb, m, n, k, one)), builder.inttoptr(a, byte), place(lda),
            builder.inttoptr(b, byte), place(ldb), place(beta), builder.inttoptr(c, byte),
            place(ldc),
        ]  # fmt: skip
        function = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [byte] * len(values))
        builder.call(builder.inttoptr(call, function.as_pointer()), values)
        return context.get_dummy_value()

    long = types.int64
    return types.none(*[long] * 10, types.float32, long, long), generate


N, T = ord("N"), ord("T")


@_inlined(_EXACT)
def _product(
    call: int, ta: int, tb: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int,
    beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    """`c[m, n] = op(a)[m, k] @ op(b)[k, n] + beta * c`, of matrices stored row by row."""
    _sgemm(call, tb, ta, n, m, k, b, ldb, a, lda, np.float32(beta), c, ldc)


# GELU ---------------------------------------------------------------------------------------------

# Phi(x) = 1/2 + x P(x^2) / Q(x^2) up to |x| = 5.6, a minimax fit tuned for float32's rounding.
REACH = np.float32(5.6)
P0, P1, P2, P3, P4, P5 = (
    np.float32(value)
    for value in (
        0.39894229173660, 0.034376081079245, 0.0047072567977011, 0.00017385045066476,
        6.3564907577530e-06, 2.2145195899270e-08,
    )
)  # fmt: skip
Q1, Q2, Q3, Q4, Q5 = (
    np.float32(value)
    for value in (
        0.25283384323120, 0.028940074145794, 0.0019129758002236, 7.5101655966136e-05,
        1.1802029575847e-06,
    )
)  # fmt: skip
HALF, ONE, ZERO = np.float32(0.5), np.float32(1), np.float32(0)


@_inlined(_EXACT)
def _normal(x: float) -> float:
    """The normal distribution function; rounded to 0 and 1 where float32 is near it."""
    y = x if x > -REACH else -REACH
    y = y if y < REACH else REACH
    t = y * y
    p = P0 + t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * P5))))
    q = ONE + t * (Q1 + t * (Q2 + t * (Q3 + t * (Q4 + t * Q5))))
    phi = HALF + y * p / q
    return ZERO if x < -REACH else phi


LOG2E, SHIFT = np.float32(1.4426950408889634), np.float32(12582912.0)  # 1.5 * 2^23: rounds
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
E2, E3, E4, E5, E6 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720))


@_inlined(_EXACT)
def _exp(x: float) -> float:
    """The exponential of numbers from -87 to 88, and of what is beyond the nearest of these."""
    x = np.float32(-87) if x < np.float32(-87) else x
    x = np.float32(88) if x > np.float32(88) else x
    shifted = x * LOG2E + SHIFT
    k = shifted - SHIFT
    r = x - k * LN2_HIGH - k * LN2_LOW
    y = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    return y * _from_bits((_bits(shifted) - _bits(SHIFT) + np.int32(127)) << np.int32(23))


@_inlined(_EXACT)
def _gelu(h: np.ndarray, bias: np.ndarray) -> None:
    """GELU of `h + bias`, in place."""
    for n in range(len(h)):
        row = h[n]
        for i in range(len(row)):
            x = row[i] + bias[i]
            row[i] = x * _normal(x)


ROOT = np.float32(0.3989422804014327)


@_inlined(_EXACT)
def _gelu_backward(h: np.ndarray, bias: np.ndarray, d: np.ndarray, to_bias: np.ndarray) -> None:
    """GELU of `h + bias` in place, and `d` times its slope there; this added up over rows."""
    for n in range(len(h)):
        row, slope = h[n], d[n]
        for i in range(len(row)):
            x = row[i] + bias[i]
            phi = _normal(x)
            g = slope[i] * (phi + x * ROOT * _exp(-HALF * x * x))
            row[i] = x * phi
            slope[i] = g
            to_bias[i] += g


# MLP ----------------------------------------------------------------------------------------------


@_inlined(_EXACT)
def _start(y: np.ndarray, onto: np.ndarray, has_onto: bool, bias: np.ndarray) -> None:
    """What products are added to: a bias, and other features where there are some."""
    for n in range(len(y)):
        row = y[n]
        if has_onto:
            under = onto[n]
            for i in range(len(row)):
                row[i] = under[i] + bias[i]
        else:
            for i in range(len(row)):
                row[i] = bias[i]


@_kernel
def mlp(data: Any) -> None:
    r"""$y = r + W_2 \operatorname{gelu}(W_1 x + b_1) + b_2$; the address of $r$ may be 0."""
    d = carray(data, (17,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    rows, channels, hidden, out, step = d[4], d[5], d[6], d[7], d[8]
    x, w1, w2, onto = d[9], d[10], d[12], d[14]
    b1, b2 = carray(_floats(d[11]), (hidden,)), carray(_floats(d[13]), (out,))
    y = d[15]
    h = scratch + 4 * _next(places) * step * hidden
    block = carray(_floats(h), (step, hidden))
    result = carray(_floats(y), (rows, out))
    under = carray(_floats(onto if onto else y), (rows, out))
    while True:
        begin = _next(counter) * step
        if begin >= rows:
            break
        end = min(begin + step, rows)
        n = end - begin
        _product(gemm, N, T, n, hidden, channels, x + 4 * begin * channels, channels, w1, channels,
                 0.0, h, hidden)  # fmt: skip
        _gelu(block[:n], b1)
        _start(result[begin:end], under[begin:end], onto != 0, b2)
        _product(gemm, N, T, n, out, hidden, h, hidden, w2, hidden, 1.0, y + 4 * begin * out, out)


@_kernel
def mlp_backward(data: Any) -> None:
    """Its gradients. What belongs to weights is added up part by part, each in its own place."""
    d = carray(data, (19,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    rows, channels, hidden, out, step, parts = d[4], d[5], d[6], d[7], d[8], d[9]
    x, w1, w2, grad, to_x, to_w1, to_b1, to_w2 = (
        d[10], d[11], d[13], d[14], d[15], d[16], d[17], d[18]
    )  # fmt: skip
    b1 = carray(_floats(d[12]), (hidden,))
    h = scratch + 4 * _next(places) * (2 * step + 1) * hidden
    s = h + 4 * step * hidden
    sums = carray(_floats(s + 4 * step * hidden), (hidden,))
    block, slope = carray(_floats(h), (step, hidden)), carray(_floats(s), (step, hidden))
    blocks = (rows + step - 1) // step
    while True:
        part = _next(counter)
        if part >= parts:
            break
        own_w1 = to_w1 + 4 * part * hidden * channels
        own_w2 = to_w2 + 4 * part * hidden * out
        own_b1 = carray(_floats(to_b1 + 4 * part * hidden), (hidden,))
        own_b1[:] = ZERO
        fresh = 0.0
        for begin in range(blocks * part // parts * step, blocks * (part + 1) // parts * step, step):
            n = min(begin + step, rows) - begin
            here, there = x + 4 * begin * channels, grad + 4 * begin * out
            _product(gemm, N, T, n, hidden, channels, here, channels, w1, channels, 0.0, h, hidden)
            _product(gemm, N, N, n, hidden, out, there, out, w2, hidden, 0.0, s, hidden)
            sums[:] = ZERO  # block by block, for their precision
            _gelu_backward(block[:n], b1, slope[:n], sums)
            for i in range(hidden):
                own_b1[i] += sums[i]
            _product(gemm, T, N, out, hidden, n, there, out, h, hidden, fresh, own_w2, hidden)
            _product(gemm, T, N, hidden, channels, n, s, hidden, here, channels, fresh, own_w1,
                     channels)  # fmt: skip
            _product(gemm, N, N, n, channels, hidden, s, hidden, w1, channels, 0.0,
                     to_x + 4 * begin * channels, channels)  # fmt: skip
            fresh = 1.0


# Context cluster ----------------------------------------------------------------------------------


@_inlined(_SUMS)
def _square(row: np.ndarray, bias: np.ndarray) -> float:
    """The square of the length of `row + bias`."""
    total = ZERO
    for i in range(len(row)):
        value = row[i] + bias[i]
        total += value * value
    return total


@_inlined(_SUMS)
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = ZERO
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_inlined(_EXACT)
def _centers(
    center: np.ndarray, heads: int, width: int, bias: np.ndarray, eps: float, shift: np.ndarray
) -> None:
    """Add the bias to the centres' f and v, and bring f to length 1; its product with the bias."""
    size = width // heads
    for r in range(len(center)):
        row = center[r]
        for i in range(len(row)):
            row[i] += bias[i]
        for head in range(heads):
            part, own = row[head * size : (head + 1) * size], bias[head * size : (head + 1) * size]
            length = max(np.sqrt(_dot(part, part)), np.float32(eps))
            for i in range(size):
                part[i] /= length
            shift[r, head] = _dot(part, own)


@_inlined(_EXACT)
def _assign(
    f: np.ndarray, bias: np.ndarray, cos: np.ndarray, shift: np.ndarray, repeats: np.ndarray,
    has_repeats: bool, alpha: float, beta: float, eps: float, score: np.ndarray, index: np.ndarray,
) -> None:  # fmt: skip
    """The best centre of each point and head, and its score before the sigmoid."""
    centers, heads = shift.shape
    size = f.shape[1] // heads
    for n in range(len(f)):
        for head in range(heads):
            part, own = f[n, head * size : (head + 1) * size], bias[head * size : (head + 1) * size]
            scale = alpha / max(np.sqrt(_square(part, own)), eps)
            best, which = np.float32(-np.inf), 0
            for m in range(centers):
                if has_repeats and repeats[m]:
                    continue
                value = scale * (cos[n, m * heads + head] + shift[m, head])
                if value > best or value != value:
                    best, which = value, m
            score[n, head], index[n, head] = beta + best, which


@_inlined(_EXACT)
def _sigmoid(x: np.ndarray) -> None:
    for i in range(len(x)):
        x[i] = ONE / (ONE + _exp(-x[i]))


@_inlined(_EXACT)
def _own(
    score: np.ndarray, index: np.ndarray, own: np.ndarray, mass: np.ndarray
) -> None:
    """The similarity where a point meets its centre, zeros elsewhere; and its sums."""
    heads = score.shape[1]
    own[:] = ZERO
    mass[:] = ZERO
    for n in range(len(score)):
        for head in range(heads):
            slot = index[n, head] * heads + head
            own[n, slot] = score[n, head]
            mass[slot] += score[n, head]


@_inlined(_EXACT)
def _aggregate(
    center: np.ndarray, width: int, heads: int, bias: np.ndarray, mass: np.ndarray, h: np.ndarray
) -> None:
    """From sums over points to means over points and their centre."""
    size = width // heads
    for r in range(len(h)):
        for head in range(heads):
            weight = mass[r * heads + head]
            for i in range(head * size, (head + 1) * size):
                total = center[r, width + i] + h[r, i] + weight * bias[width + i]
                h[r, i] = total / (ONE + weight)


@_inlined(_EXACT)
def _room(count: int) -> int:
    """Bytes for so many float32 numbers, in whole lines of a cache."""
    return (count + 15) // 16 * 64


@_kernel
def cluster(data: Any) -> None:
    """`lifted_cluster`, some regions at a time; slots are centre by centre, then head by head."""
    d = carray(data, (30,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    scratch_size, regions, points, channels, out = d[4], d[5], d[6], d[7], d[8]
    width, heads, centers, group = d[9], d[10], d[11], d[12]
    x, weight, bias_at, proj, last_at, numbers_at = d[13], d[14], d[15], d[16], d[17], d[18]
    pool, pool_step, count_at, repeats_at, repeats_step = d[19], d[20], d[21], d[22], d[23]
    onto, y, to_index, to_score = d[24], d[25], d[26], d[27]
    slots, size, most = centers * heads, width // heads, max(channels, out)
    bias, last = carray(_floats(bias_at), (2 * width,)), carray(_floats(last_at), (out,))
    numbers = carray(_floats(numbers_at), (3,))
    alpha, beta, eps = numbers[0], numbers[1], numbers[2]
    count = carray(_floats(count_at), (centers,))
    result = carray(_floats(y), (regions * points, out))
    under = carray(_floats(onto if onto else y), (regions * points, out))
    # A thread's own places, of [group * points, .] and [group * centers, .]
    index_at = scratch + _next(places) * scratch_size
    score_at = index_at + _room(2 * group * points * heads)
    f_at = score_at + _room(group * points * heads)
    own_at = f_at + _room(group * points * width)
    mean_at = own_at + _room(group * points * slots)
    center_at = mean_at + _room(group * centers * channels)
    shift_at = center_at + _room(group * centers * 2 * width)
    mass_at = shift_at + _room(group * slots)
    h_at = mass_at + _room(group * slots)
    back_at = h_at + _room(group * centers * width)
    f = carray(_floats(f_at), (group, points, width))
    own = carray(_floats(own_at), (group, points, slots))
    mean = carray(_floats(mean_at), (group, centers, channels))
    center = carray(_floats(center_at), (group * centers, 2 * width))
    shift = carray(_floats(shift_at), (group * centers, heads))
    mass = carray(_floats(mass_at), (group, slots))
    h = carray(_floats(h_at), (group * centers, width))
    while True:
        begin = _next(counter) * group
        if begin >= regions:
            break
        n = min(begin + group, regions) - begin
        here, done = x + 4 * begin * points * channels, begin * points * heads
        if to_index:
            index_at, score_at = to_index + 8 * done, to_score + 4 * done
        index = carray(_longs(index_at), (group, points, heads))
        score = carray(_floats(score_at), (group, points, heads))
        # Propose.
        for r in range(n):
            _product(gemm, N, N, centers, channels, points, pool + 4 * (begin + r) * pool_step,
                     points, here + 4 * r * points * channels, channels, 0.0,
                     mean_at + 4 * r * centers * channels, channels)  # fmt: skip
            if count_at:
                for m in range(centers):
                    for i in range(channels):
                        mean[r, m, i] /= count[m]
        _product(gemm, N, T, n * centers, 2 * width, channels, mean_at, channels, weight, channels,
                 0.0, center_at, 2 * width)  # fmt: skip
        _centers(center[: n * centers], heads, width, bias, eps, shift)
        for head in range(heads):
            _product(gemm, N, N, n * centers, channels, size, center_at + 4 * head * size,
                     2 * width, weight + 4 * head * size * channels, channels, 0.0,
                     back_at + 4 * head * channels, heads * channels)  # fmt: skip
        # Assign.
        _product(gemm, N, T, n * points, width, channels, here, channels, weight, channels, 0.0,
                 f_at, width)  # fmt: skip
        for r in range(n):
            _product(gemm, N, T, points, slots, channels, here + 4 * r * points * channels,
                     channels, back_at + 4 * r * slots * channels, channels, 0.0,
                     own_at + 4 * r * points * slots, slots)  # fmt: skip
            repeats = carray(_floats(repeats_at + 4 * (begin + r) * repeats_step), (centers,))
            _assign(f[r], bias, own[r], shift[r * centers : (r + 1) * centers], repeats,
                    repeats_at != 0, alpha, beta, eps, score[r], index[r])  # fmt: skip
        _sigmoid(carray(_floats(score_at), (n * points * heads,)))
        # Aggregate.
        for r in range(n):
            _own(score[r], index[r], own[r], mass[r])
            _product(gemm, T, N, slots, channels, points, own_at + 4 * r * points * slots, slots,
                     here + 4 * r * points * channels, channels, 0.0,
                     back_at + 4 * r * slots * channels, channels)  # fmt: skip
        for head in range(heads):
            _product(gemm, N, T, n * centers, size, channels, back_at + 4 * head * channels,
                     heads * channels, weight + 4 * (width + head * size) * channels, channels,
                     0.0, h_at + 4 * head * size, width)  # fmt: skip
        _aggregate(center, width, heads, bias, carray(_floats(mass_at), (n * slots,)),
                   h[: n * centers])  # fmt: skip
        # Dispatch.
        for head in range(heads):
            _product(gemm, N, T, n * centers, out, size, h_at + 4 * head * size, width,
                     proj + 4 * head * size, width, 0.0, back_at + 4 * head * out,
                     heads * out)  # fmt: skip
        first, end = begin * points, (begin + n) * points
        _start(result[first:end], under[first:end], onto != 0, last)
        for r in range(n):
            _product(gemm, N, N, points, out, slots, own_at + 4 * r * points * slots, slots,
                     back_at + 4 * r * slots * out, out, 1.0,
                     y + 4 * (first + r * points) * out, out)  # fmt: skip
