"""What the CPU's kernels are written with: arrays at addresses, products, and a few functions.

Loaded only where Numba is installed. Everything here is called by compiled code alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

__all__ = ["carray"]
intrinsic: Any = _intrinsic

# The compiler may fuse a product with a sum, and in sums may change the order; NaN stays NaN.
EXACT = {"contract", "nsz"}
SUMS = {"contract", "nsz", "reassoc"}
HALF, ONE, ZERO = np.float32(0.5), np.float32(1), np.float32(0)


def inlined(fastmath: set[str]) -> Any:
    """Compile a function that other compiled ones call."""
    compiled: Any = njit
    return compiled(
        fastmath=fastmath, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )


# Numba keeps compiled kernels on disk and compiles them anew when their own file changes. They
# depend on this one and on its neighbour, too: a name in their signature says which these were.
_VERSION = zlib.crc32(
    b"".join((Path(__file__).parent / name).read_bytes() for name in ("loops.py", "launch.py"))
)


def compiled(record: np.dtype, function: Callable[[Any], None]) -> Any:
    """Compile a function of a pointer to a record, and keep it on disk where there is a place."""
    fields = [(name, np.int64) for name in record.names or ()] + [(f"_{_VERSION:x}", np.int64)]
    signature = types.void(types.CPointer(from_dtype(np.dtype(fields))))
    options: dict[str, Any] = {"fastmath": EXACT, "error_model": "numpy"}
    try:
        return cfunc(signature, cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cfunc(signature, **options)(function)


# What Numba lacks ---------------------------------------------------------------------------------


def _pointer(kind: Any) -> Any:
    @intrinsic
    def at(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return at


float32_at, int64_at, int32_at = map(_pointer, (types.float32, types.int64, types.int32))


def _bits(kind: Any, other: Any) -> Any:
    @intrinsic
    def cast(_: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(kind))

        return kind(other), generate

    return cast


_to_bits, _from_bits = _bits(types.int32, types.float32), _bits(types.float32, types.int32)


@intrinsic
def count_up(_: Any, address: Any) -> Any:
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


# Sums and products --------------------------------------------------------------------------------

N, T = False, True


@inlined(EXACT)
def product(
    gemm: int, a: np.ndarray, ta: bool, b: np.ndarray, tb: bool, beta: float, c: np.ndarray
) -> None:
    """`c = op(a) @ op(b) + beta * c`, of matrices whose rows are dense."""
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    normal, transposed = ord("N"), ord("T")
    _sgemm(
        gemm, transposed if tb else normal, transposed if ta else normal, n, m, k,
        b.ctypes.data, b.strides[0] // 4, a.ctypes.data, a.strides[0] // 4,
        np.float32(beta), c.ctypes.data, c.strides[0] // 4,
    )  # fmt: skip


@inlined(SUMS)
def dot(a: np.ndarray, b: np.ndarray) -> Any:
    """The sum of products."""
    total = ZERO
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@inlined(EXACT)
def add_times(value: float, row: np.ndarray, to: np.ndarray) -> None:
    """Add a row, times a number, to another."""
    for i in range(len(to)):
        to[i] += value * row[i]


@inlined(EXACT)
def add_rows(rows: np.ndarray, sums: np.ndarray, total: np.ndarray) -> None:
    """Add rows to a total, all at once: sums of sums lose fewer digits."""
    width = len(total)
    sums[:width] = ZERO
    for n in range(len(rows)):
        for i in range(width):
            sums[i] += rows[n, i]
    for i in range(width):
        total[i] += sums[i]


@inlined(EXACT)
def start_rows(y: np.ndarray, residual: np.ndarray, bias: np.ndarray) -> None:
    """What products are added to: a bias, and other features where there are some."""
    for n in range(len(y)):
        row = y[n]
        if len(residual):
            under = residual[n]
            for i in range(len(row)):
                row[i] = under[i] + bias[i]
        else:
            for i in range(len(row)):
                row[i] = bias[i]


# Functions of one number --------------------------------------------------------------------------

LOG2E, SHIFT = np.float32(1.4426950408889634), np.float32(12582912.0)  # 1.5 * 2^23: rounds
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
E2, E3, E4, E5, E6 = (np.float32(1 / f) for f in (2, 6, 24, 120, 720))


@inlined(EXACT)
def exp(x: Any) -> Any:
    """The exponential: 0 below -87, and above 88 as there."""
    low = x < np.float32(-87)
    x = np.float32(88) if x > np.float32(88) else x
    x = np.float32(-87) if low else x
    shifted = x * LOG2E + SHIFT
    k = shifted - SHIFT
    r = x - k * LN2_HIGH - k * LN2_LOW
    y = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    y *= _from_bits((_to_bits(shifted) - _to_bits(SHIFT) + np.int32(127)) << np.int32(23))
    return ZERO if low else y


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


@inlined(EXACT)
def normal(x: Any) -> Any:
    """The normal distribution function; rounded to 0 and 1 where float32 is near it."""
    y = x if x > -REACH else -REACH
    y = y if y < REACH else REACH
    t = y * y
    p = P0 + t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * P5))))
    q = ONE + t * (Q1 + t * (Q2 + t * (Q3 + t * (Q4 + t * Q5))))
    phi = HALF + y * p / q
    return ZERO if x < -REACH else phi
