"""Blocks of rows through several layers at once, as loops that Numba compiles.

Loaded only where Numba is installed. Each kernel takes one address, of a list of addresses and
sizes, and is called by every thread of a team; the threads take blocks, by a counter they share,
until none is left. Between two layers a block stays in the thread's own cache. Matrices are stored
row by row, in float32; their products are those of the BLAS that torch brings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic

# The compiler may fuse a product with a sum, and in sums may change the order; NaN stays NaN.
_EXACT = {"contract", "nsz"}
_SUMS = {"contract", "nsz", "reassoc"}


def _inlined(fastmath: set[str]) -> Any:
    compiled: Any = njit
    return compiled(  # called by other compiled loops only
        fastmath=fastmath, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )


class Kernel:
    """A function of one address, compiled for a team's threads when it is first wanted."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        self.function = function

    @cached_property
    def address(self) -> int:
        """Where it is in memory; on disk, too, where there is a place for it."""
        return int(self._compiled.address)

    @cached_property
    def _compiled(self) -> Any:
        signature = types.void(types.CPointer(types.int64))
        options: dict[str, Any] = {"fastmath": _EXACT, "error_model": "numpy"}
        try:
            return cfunc(signature, cache=True, **options)(self.function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            return cfunc(signature, **options)(self.function)


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
def _ints(_: Any, address: Any) -> Any:
    """The address as one of int32 numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int32)(types.int64), generate


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
def _normal(x: Any) -> Any:
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
def _exp(x: Any) -> Any:
    """The exponential: 0 below -87, and above 88 as there."""
    low = x < np.float32(-87)
    x = np.float32(88) if x > np.float32(88) else x
    x = np.float32(-87) if low else x
    shifted = x * LOG2E + SHIFT
    k = shifted - SHIFT
    r = x - k * LN2_HIGH - k * LN2_LOW
    y = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    y *= _from_bits((_bits(shifted) - _bits(SHIFT) + np.int32(127)) << np.int32(23))
    return ZERO if low else y


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


@Kernel
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


@Kernel
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
        for begin in range(
            blocks * part // parts * step, blocks * (part + 1) // parts * step, step
        ):
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
def _square(row: np.ndarray, bias: np.ndarray) -> Any:
    """The square of the length of `row + bias`."""
    total = ZERO
    for i in range(len(row)):
        value = row[i] + bias[i]
        total += value * value
    return total


@_inlined(_SUMS)
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    total = ZERO
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_inlined(_EXACT)
def _spread_mean(mean: np.ndarray, count: np.ndarray) -> None:
    for m in range(len(mean)):
        for i in range(mean.shape[1]):
            mean[m, i] /= count[m]


@_inlined(_EXACT)
def _centers(
    center: np.ndarray, heads: int, width: int, bias: np.ndarray, eps: float, length: np.ndarray
) -> None:
    """Add the bias to the centres' f and v, and bring f to length 1 from what it is."""
    size = width // heads
    for r in range(len(center)):
        row = center[r]
        for i in range(len(row)):
            row[i] += bias[i]
        for head in range(heads):
            part = row[head * size : (head + 1) * size]
            length[r, head] = np.sqrt(_dot(part, part))
            scale = ONE / max(length[r, head], eps)
            for i in range(size):
                part[i] *= scale


@_inlined(_EXACT)
def _assign(
    f: np.ndarray, bias: np.ndarray, cos: np.ndarray, shift: np.ndarray, closed: np.ndarray,
    alpha: float, beta: float, eps: float, score: np.ndarray, index: np.ndarray,
) -> None:  # fmt: skip
    """The best centre of each point and head, and its score before the sigmoid."""
    centers, heads = shift.shape
    size = f.shape[1] // heads
    for n in range(len(f)):
        for head in range(heads):
            at, end = head * size, (head + 1) * size
            scale = alpha / max(np.sqrt(_square(f[n, at:end], bias[at:end])), eps)
            best, which = np.float32(-np.inf), 0
            for m in range(centers):
                value = scale * (cos[n, m * heads + head] + shift[m, head]) + closed[m]
                higher = (value > best) | (value != value)
                best, which = value if higher else best, m if higher else which
            score[n, head], index[n, head] = beta + best, which


@_inlined(_EXACT)
def _sigmoid(x: np.ndarray) -> None:
    for i in range(len(x)):
        x[i] = ONE / (ONE + _exp(-x[i]))


@_inlined(_EXACT)
def _add_times(value: float, row: np.ndarray, to: np.ndarray) -> None:
    for i in range(len(to)):
        to[i] += value * row[i]


@_inlined(_EXACT)
def _own(score: np.ndarray, index: np.ndarray, own: np.ndarray, mass: np.ndarray) -> None:
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


@Kernel
def cluster(data: Any) -> None:
    """`lifted_cluster`, some regions at a time; slots are centre by centre, then head by head."""
    d = carray(data, (30,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    scratch_size, regions, points, channels, out = d[4], d[5], d[6], d[7], d[8]
    width, heads, centers, group = d[9], d[10], d[11], d[12]
    x, weight, bias_at, proj, last_at, numbers_at = d[13], d[14], d[15], d[16], d[17], d[18]
    pool, pool_step, count_at, closed_at, closed_step = d[19], d[20], d[21], d[22], d[23]
    onto, y, to_index, to_score = d[24], d[25], d[26], d[27]
    slots, size = centers * heads, width // heads
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
                _spread_mean(mean[r], count)
        _product(gemm, N, T, n * centers, 2 * width, channels, mean_at, channels, weight, channels,
                 0.0, center_at, 2 * width)  # fmt: skip
        _centers(center[: n * centers], heads, width, bias, eps, shift)
        for r in range(n * centers):
            for head in range(heads):
                at, end = head * size, (head + 1) * size
                shift[r, head] = _dot(center[r, at:end], bias[at:end])
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
            closed = carray(_floats(closed_at + 4 * (begin + r) * closed_step), (centers,))
            _assign(f[r], bias, own[r], shift[r * centers : (r + 1) * centers], closed, alpha,
                    beta, eps, score[r], index[r])  # fmt: skip
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


@_inlined(_EXACT)
def _aggregate_backward(
    h: np.ndarray, to_h: np.ndarray, mass: np.ndarray, heads: int, bias: np.ndarray,
    to_center: np.ndarray, to_bias: np.ndarray, to_mass: np.ndarray,
) -> None:  # fmt: skip
    """From the gradient of `h` to that of its sums, `to_h`, of g and of v's bias."""
    width = h.shape[1]
    size = width // heads
    for r in range(len(h)):
        for head in range(heads):
            at, end = head * size, (head + 1) * size
            weight = mass[r * heads + head]
            part, own = to_h[r, at:end], bias[width + at : width + end]
            inverse = ONE / (ONE + weight)
            for i in range(size):
                part[i] *= inverse
            to_mass[r * heads + head] = _dot(part, own) - _dot(part, h[r, at:end])
            for i in range(size):
                to_center[r, width + at + i] = part[i]
                to_bias[width + at + i] += weight * part[i]


@_inlined(_EXACT)
def _assign_backward(
    x: np.ndarray, grad: np.ndarray, f: np.ndarray, bias: np.ndarray, center: np.ndarray,
    out: np.ndarray, to_total: np.ndarray, to_mass: np.ndarray, score: np.ndarray,
    index: np.ndarray, alpha: float, eps: float, to_center: np.ndarray, to_numbers: np.ndarray,
) -> None:  # fmt: skip
    """From the gradients of the output and the sums to those of f, in its place, and centres."""
    heads = score.shape[1]
    size = f.shape[1] // heads
    to_alpha, to_beta = ZERO, ZERO
    for n in range(len(x)):
        for head in range(heads):
            m = index[n, head]
            slot, at, end = m * heads + head, head * size, (head + 1) * size
            s = score[n, head]
            to_s = _dot(grad[n], out[slot]) + _dot(x[n], to_total[slot]) + to_mass[slot]
            to_z = to_s * s * (ONE - s)
            part, own, middle, to_middle = (
                f[n, at:end], bias[at:end], center[m, at:end], to_center[m, at:end],
            )  # fmt: skip
            for i in range(size):
                part[i] += own[i]
            length = np.sqrt(_dot(part, part))
            inverse = ONE / max(length, eps)
            cos = _dot(part, middle) * inverse
            to_alpha += to_z * cos
            to_beta += to_z
            slope = alpha * to_z * inverse
            along = cos * inverse if length > eps else ZERO
            for i in range(size):
                value = part[i]
                to_middle[i] += slope * value
                part[i] = slope * (middle[i] - along * value)
    to_numbers[0] += to_alpha
    to_numbers[1] += to_beta


@_inlined(_EXACT)
def _centers_backward(
    center: np.ndarray, length: np.ndarray, heads: int, eps: float, to_center: np.ndarray
) -> None:
    """From the gradient of centres of length 1 to that of the centres."""
    size = center.shape[1] // 2 // heads
    for r in range(len(center)):
        for head in range(heads):
            part = center[r, head * size : (head + 1) * size]
            to = to_center[r, head * size : (head + 1) * size]
            along = _dot(part, to) if length[r, head] > eps else ZERO
            inverse = ONE / max(length[r, head], eps)
            for i in range(size):
                to[i] = inverse * (to[i] - along * part[i])


@_inlined(_EXACT)
def _add_rows(rows: np.ndarray, sums: np.ndarray, total: np.ndarray) -> None:
    """Add rows to a total, all at once: sums of sums lose fewer digits."""
    width = len(total)
    sums[:width] = ZERO
    for n in range(len(rows)):
        for i in range(width):
            sums[i] += rows[n, i]
    for i in range(width):
        total[i] += sums[i]


@Kernel
def cluster_backward(data: Any) -> None:
    """Its gradients, given index and similarity; those of weights as in `mlp_backward`."""
    d = carray(data, (36,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    scratch_size, regions, points, channels, out = d[4], d[5], d[6], d[7], d[8]
    width, heads, centers, group = d[9], d[10], d[11], d[12]
    x, weight, bias_at, proj, numbers_at = d[13], d[14], d[15], d[16], d[17]
    pool, pool_step, count_at = d[18], d[19], d[20]
    index_at, score_at, grad, parts = d[21], d[22], d[23], d[24]
    to_x, to_weight, to_bias_at, to_proj, to_last_at, to_numbers_at = (
        d[25], d[26], d[27], d[28], d[29], d[30]
    )  # fmt: skip
    slots, size = centers * heads, width // heads
    bias, numbers = carray(_floats(bias_at), (2 * width,)), carray(_floats(numbers_at), (3,))
    alpha, eps = numbers[0], numbers[2]
    count = carray(_floats(count_at), (centers,))
    all_x = carray(_floats(x), (regions, points, channels))
    all_grad = carray(_floats(grad), (regions, points, out))
    all_index = carray(_longs(index_at), (regions, points, heads))
    all_score = carray(_floats(score_at), (regions, points, heads))
    f_at = scratch + _next(places) * scratch_size
    own_at = f_at + _room(group * points * width)
    mean_at = own_at + _room(group * points * slots)
    to_mean_at = mean_at + _room(group * centers * channels)
    center_at = to_mean_at + _room(group * centers * channels)
    to_center_at = center_at + _room(group * centers * 2 * width)
    length_at = to_center_at + _room(group * centers * 2 * width)
    mass_at = length_at + _room(group * slots)
    to_mass_at = mass_at + _room(group * slots)
    h_at = to_mass_at + _room(group * slots)
    to_h_at = h_at + _room(group * centers * width)
    total_at = to_h_at + _room(group * centers * width)
    to_total_at = total_at + _room(group * slots * channels)
    out_at = to_total_at + _room(group * slots * channels)
    to_out_at = out_at + _room(group * slots * out)
    sums_at = to_out_at + _room(group * slots * out)
    sums = carray(_floats(sums_at), (max(2 * width, out),))
    f = carray(_floats(f_at), (group, points, width))
    mean = carray(_floats(mean_at), (group, centers, channels))
    to_mean = carray(_floats(to_mean_at), (group, centers, channels))
    center = carray(_floats(center_at), (group * centers, 2 * width))
    to_center = carray(_floats(to_center_at), (group * centers, 2 * width))
    length = carray(_floats(length_at), (group * centers, heads))
    mass = carray(_floats(mass_at), (group, slots))
    to_mass = carray(_floats(to_mass_at), (group, slots))
    h = carray(_floats(h_at), (group * centers, width))
    to_h = carray(_floats(to_h_at), (group * centers, width))
    own = carray(_floats(own_at), (group, points, slots))
    to_total = carray(_floats(to_total_at), (group, slots, channels))
    dispatched = carray(_floats(out_at), (group, slots, out))
    blocks = (regions + group - 1) // group
    while True:
        part = _next(counter)
        if part >= parts:
            break
        own_weight = to_weight + 4 * part * 2 * width * channels
        own_proj = to_proj + 4 * part * out * width
        own_bias = carray(_floats(to_bias_at + 4 * part * 2 * width), (2 * width,))
        own_last = carray(_floats(to_last_at + 4 * part * out), (out,))
        own_numbers = carray(_floats(to_numbers_at + 4 * part * 2), (2,))
        own_bias[:], own_last[:], own_numbers[:] = ZERO, ZERO, ZERO
        fresh = 0.0
        for block in range(blocks * part // parts, blocks * (part + 1) // parts):
            begin = block * group
            n = min(begin + group, regions) - begin
            rows = n * centers
            here = x + 4 * begin * points * channels
            there = grad + 4 * begin * points * out
            back = to_x + 4 * begin * points * channels
            # Propose, once more.
            for r in range(n):
                _product(gemm, N, N, centers, channels, points, pool + 4 * (begin + r) * pool_step,
                         points, here + 4 * r * points * channels, channels, 0.0,
                         mean_at + 4 * r * centers * channels, channels)  # fmt: skip
                if count_at:
                    _spread_mean(mean[r], count)
            _product(gemm, N, T, rows, 2 * width, channels, mean_at, channels, weight, channels,
                     0.0, center_at, 2 * width)  # fmt: skip
            _centers(center[:rows], heads, width, bias, eps, length)
            # Aggregate.
            for r in range(n):
                _own(all_score[begin + r], all_index[begin + r], own[r], mass[r])
                _product(gemm, T, N, slots, channels, points, own_at + 4 * r * points * slots,
                         slots, here + 4 * r * points * channels, channels, 0.0,
                         total_at + 4 * r * slots * channels, channels)  # fmt: skip
                _product(gemm, T, N, slots, out, points, own_at + 4 * r * points * slots, slots,
                         there + 4 * r * points * out, out, 0.0,
                         to_out_at + 4 * r * slots * out, out)  # fmt: skip
            for head in range(heads):
                _product(gemm, N, T, rows, size, channels, total_at + 4 * head * channels,
                         heads * channels, weight + 4 * (width + head * size) * channels, channels,
                         0.0, h_at + 4 * head * size, width)  # fmt: skip
            _aggregate(center, width, heads, bias, carray(_floats(mass_at), (n * slots,)), h[:rows])
            for head in range(heads):
                at = 4 * head * size
                _product(gemm, N, T, rows, out, size, h_at + at, width, proj + at, width, 0.0,
                         out_at + 4 * head * out, heads * out)  # fmt: skip
                # Back from the last map.
                _product(gemm, N, N, rows, size, out, to_out_at + 4 * head * out, heads * out,
                         proj + at, width, 0.0, to_h_at + at, width)  # fmt: skip
                _product(gemm, T, N, out, size, rows, to_out_at + 4 * head * out, heads * out,
                         h_at + at, width, fresh, own_proj + at, width)  # fmt: skip
            to_center[:rows] = ZERO
            _aggregate_backward(h[:rows], to_h[:rows], carray(_floats(mass_at), (n * slots,)),
                                heads, bias, to_center, own_bias,
                                carray(_floats(to_mass_at), (n * slots,)))  # fmt: skip
            for head in range(heads):
                v_at = 4 * (width + head * size) * channels
                _product(gemm, N, N, rows, channels, size, to_h_at + 4 * head * size, width,
                         weight + v_at, channels, 0.0, to_total_at + 4 * head * channels,
                         heads * channels)  # fmt: skip
            # Back from the assignment: now f in turn.
            _product(gemm, N, T, n * points, width, channels, here, channels, weight, channels, 0.0,
                     f_at, width)  # fmt: skip
            for r in range(n):
                first, end = r * centers, (r + 1) * centers
                _assign_backward(
                    all_x[begin + r], all_grad[begin + r], f[r], bias, center[first:end],
                    dispatched[r], to_total[r], to_mass[r], all_score[begin + r],
                    all_index[begin + r], alpha, eps, to_center[first:end], own_numbers,
                )  # fmt: skip
                _add_rows(f[r], sums, own_bias[:width])
                _add_rows(all_grad[begin + r], sums, own_last)
            _centers_backward(center[:rows], length[:rows], heads, eps, to_center[:rows])
            _add_rows(to_center[:rows], sums, own_bias)
            # To the weights: of centres, all of them; then of f, and of v by its sums.
            _product(gemm, T, N, 2 * width, channels, rows, to_center_at, 2 * width, mean_at,
                     channels, fresh, own_weight, channels)  # fmt: skip
            _product(gemm, T, N, width, channels, n * points, f_at, width, here, channels, 1.0,
                     own_weight, channels)  # fmt: skip
            for head in range(heads):
                _product(gemm, T, N, size, channels, rows, to_h_at + 4 * head * size, width,
                         total_at + 4 * head * channels, heads * channels, 1.0,
                         own_weight + 4 * (width + head * size) * channels, channels)  # fmt: skip
            # To the points: through f, the sums, and the means.
            _product(gemm, N, N, n * points, channels, width, f_at, width, weight, channels, 0.0,
                     back, channels)  # fmt: skip
            _product(gemm, N, N, rows, channels, 2 * width, to_center_at, 2 * width, weight,
                     channels, 0.0, to_mean_at, channels)  # fmt: skip
            for r in range(n):
                if count_at:
                    _spread_mean(to_mean[r], count)
                to = back + 4 * r * points * channels
                _product(gemm, N, N, points, channels, slots, own_at + 4 * r * points * slots,
                         slots, to_total_at + 4 * r * slots * channels, channels, 1.0, to,
                         channels)  # fmt: skip
                _product(gemm, T, N, points, channels, centers,
                         pool + 4 * (begin + r) * pool_step, points,
                         to_mean_at + 4 * r * centers * channels, channels, 1.0, to,
                         channels)  # fmt: skip
            fresh = 1.0


# Gathering a maximum ------------------------------------------------------------------------------


@_inlined(_EXACT)
def _add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = a[i] + b[i]


@_inlined(_EXACT)
def _keep_higher(value: np.ndarray, slot: int, best: np.ndarray, which: np.ndarray) -> None:
    """Where a value is higher than the best so far, or none: it is the best."""
    for i in range(len(best)):
        higher = (value[i] > best[i]) | (value[i] != value[i])
        best[i] = value[i] if higher else best[i]
        which[i] = np.int32(slot) if higher else which[i]


@Kernel
def gather_max(data: Any) -> None:
    """`_GatherMax`'s maximum, some anchors at a time; addresses of what is left out are 0."""
    d = carray(data, (17,))
    gemm, counter, places, scratch = d[0], d[1], d[2], d[3]
    anchors, k, points, channels, inner, step = d[4], d[5], d[6], d[7], d[8], d[9]
    x_at, relative, weight, index_at, y_at, which_at = d[10], d[11], d[12], d[13], d[14], d[15]
    placed_at = scratch + 4 * _next(places) * (step * k + 1) * channels
    placed = carray(_floats(placed_at), (step * k + 1, channels))
    row = placed[step * k]
    x = carray(_floats(x_at if x_at else y_at), (points, channels))
    index = carray(_longs(index_at), (anchors, k))
    y, which = (
        carray(_floats(y_at), (anchors, channels)),
        carray(_ints(which_at), (anchors, channels)),
    )
    while True:
        begin = _next(counter) * step
        if begin >= anchors:
            break
        end = min(begin + step, anchors)
        if relative:
            _product(gemm, N, T, (end - begin) * k, channels, inner,
                     relative + 4 * begin * k * inner, inner, weight, inner, 0.0, placed_at,
                     channels)  # fmt: skip
        for a in range(begin, end):
            y[a] = np.float32(-np.inf)
            which[a] = 0
            for j in range(k):
                here = (a - begin) * k + j
                if x_at and relative:
                    _add(x[index[a, j]], placed[here], row)
                    _keep_higher(row, j, y[a], which[a])
                elif relative:
                    _keep_higher(placed[here], j, y[a], which[a])
                else:
                    _keep_higher(x[index[a, j]], j, y[a], which[a])


@Kernel
def gather_max_backward(data: Any) -> None:
    """Its gradients: first parts of the anchors for `relative`, then of the channels for others."""
    d = carray(data, (19,))
    counter, sums_at = d[1], d[3]
    anchors, k, points, channels, inner, step, wide = d[4], d[5], d[6], d[7], d[8], d[9], d[10]
    relative_at, weight_at, index_at, which_at, grad_at = d[11], d[12], d[13], d[14], d[15]
    to_x_at, to_relative_at, to_weight_at = d[16], d[17], d[18]
    sums = carray(_floats(sums_at), (channels, inner))
    none = grad_at  # stands for what is not there
    relative = carray(_floats(relative_at if relative_at else none), (anchors, k, inner))
    weight = carray(_floats(weight_at if weight_at else none), (channels, inner))
    index, which = (
        carray(_longs(index_at), (anchors, k)),
        carray(_ints(which_at), (anchors, channels)),
    )
    grad = carray(_floats(grad_at), (anchors, channels))
    to_x = carray(_floats(to_x_at if to_x_at else none), (points, channels))
    to_relative = carray(_floats(to_relative_at if to_relative_at else none), (anchors, k, inner))
    to_weight = carray(_floats(to_weight_at if to_weight_at else none), (channels, inner))
    first = (anchors + step - 1) // step if to_relative_at else 0
    while True:
        part = _next(counter)
        if part < first:
            for a in range(part * step, min(part * step + step, anchors)):
                to_relative[a] = ZERO
                for c in range(channels):
                    _add_times(grad[a, c], weight[c], to_relative[a, which[a, c]])
            continue
        begin = (part - first) * wide
        if begin >= channels:
            break
        end = min(begin + wide, channels)
        if to_x_at:
            to_x[:, begin:end] = ZERO
        if to_weight_at:
            to_weight[begin:end] = ZERO
        for block in range(0, anchors, step):  # sums block by block, for their precision
            sums[begin:end] = ZERO
            for a in range(block, min(block + step, anchors)):
                for c in range(begin, end):
                    j = which[a, c]
                    if to_x_at:
                        to_x[index[a, j], c] += grad[a, c]
                    if to_weight_at:
                        _add_times(grad[a, c], relative[a, j], sums[c])
            if to_weight_at:
                for c in range(begin, end):
                    _add_times(ONE, sums[c], to_weight[c])
