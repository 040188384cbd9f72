"""Farthest and nearest points on a GPU, in Triton.

Distances are `squared_distance`'s to the last bit: axis after axis, every operation rounded by
itself (kernels are launched without fused multiply-add). Results are the same each time.

`farthest`: a program takes a cloud, whose points and distances stay in registers from pick to pick.
`farthest_step`: one pick of all large clouds, all programs on a part of one; the farthest point is
the maximum of whole numbers that hold the distance above what is left when the index is taken from
the largest one, so that of equals the lower index wins, whoever comes first.

`nearest`: a program takes some queries of a cloud and goes through its points in tiles [BQ, BP]:
k times the nearest one that is left, beside the best of the tiles before. `nearest_cells`: points
lie sorted by cells of a grid; a program takes some queries, looks at the cells around each one, one
point at a time for all of them, and says who may have nearer points beyond these cells.

Proved by Triton's interpreter on a CPU, and compiled for NVIDIA's 8.0 and 9.0; not tuned on a card.
"""

# Triton's language has no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(pos, row, mask, D: tl.constexpr):
    """Up to three axes of points; those that they have not are 0."""
    x = tl.load(pos + row * D, mask, 0.0)
    y, z = x * 0.0, x * 0.0
    if D > 1:
        y = tl.load(pos + row * D + 1, mask, 0.0)
    if D > 2:
        z = tl.load(pos + row * D + 2, mask, 0.0)
    return x, y, z


@triton.jit
def _distance(x, y, z, px, py, pz, D: tl.constexpr):
    d = (x - px) * (x - px)
    if D > 1:
        d = d + (y - py) * (y - py)
    if D > 2:
        d = d + (z - pz) * (z - pz)
    return d


# Farthest points ----------------------------------------------------------------------------------


@triton.jit
def _from_corner(x, real, size):
    """An axis seen from its lowest point, and its mean."""
    x = tl.where(real, x - tl.min(tl.where(real, x, float("inf")), 0), 0.0)
    return x, tl.sum(x, 0) / tl.maximum(size, 1)


@triton.jit
def _farthest_from_mean(x, y, z, p, real, size, D: tl.constexpr, BP: tl.constexpr):
    """The point farthest from the mean; of points as far but for rounding the first."""
    x, mx = _from_corner(x, real, size)
    y, my = _from_corner(y, real, size)
    z, mz = _from_corner(z, real, size)
    d = tl.where(real, _distance(x, y, z, mx, my, mz, D), -1.0)
    near = tl.max(d, 0) * (1 - 2**-17)  # as clouds.EQUAL says
    return tl.min(tl.where(d >= near, p, BP - 1), 0)


@triton.jit
def farthest(pos, ptr, pick_ptr, start, out, D: tl.constexpr, BP: tl.constexpr):
    """All picks of a cloud of up to BP points; larger ones are left out."""
    cloud = tl.program_id(0).to(tl.int64)
    begin, first = tl.load(ptr + cloud), tl.load(pick_ptr + cloud)
    size = tl.load(ptr + cloud + 1) - begin
    num = tl.where(size <= BP, tl.load(pick_ptr + cloud + 1) - first, 0).to(tl.int32)
    p = tl.arange(0, BP)
    x, y, z = _load(pos + begin * D, p, (p < size) & (size <= BP), D)
    near = tl.where(p < size, float("inf"), -1.0)
    if start is None:
        pick = _farthest_from_mean(x, y, z, p, p < size, size, D, BP)
    else:
        pick = tl.load(start + cloud).to(tl.int32)
    for i in range(num):
        tl.store(out + first + i, begin + pick)
        px, py, pz = _load(pos + begin * D, pick, True, D)
        near = tl.minimum(near, _distance(x, y, z, px, py, pz, D))
        near = tl.where(p == pick, -1.0, near)  # below every distance: never chosen again
        pick = tl.argmax(near, 0)  # the first of equals


@triton.jit(do_not_specialize=["i"])
def farthest_step(
    pos, ptr, clouds, nums, near, best, i, most, parts, D: tl.constexpr, BP: tl.constexpr
):
    """Pick i of each cloud, [L, most]; the one before is read, and leaves its mark."""
    row = (tl.program_id(0) // parts).to(tl.int64)
    cloud = tl.load(clouds + row)
    begin = tl.load(ptr + cloud)
    size = tl.load(ptr + cloud + 1) - begin
    o = (tl.program_id(0) % parts).to(tl.int64) * BP + tl.arange(0, BP)
    real = (o < size) & (i < tl.load(nums + row))
    pick = 0xFFFFFFFF - (tl.load(best + row * most + i - 1) & 0xFFFFFFFF)
    px, py, pz = _load(pos + begin * D, pick, i < tl.load(nums + row), D)
    x, y, z = _load(pos + begin * D, o, real, D)
    d = tl.minimum(tl.load(near + begin + o, real, -1.0), _distance(x, y, z, px, py, pz, D))
    d = tl.where(o == pick, -1.0, d)
    tl.store(near + begin + o, d, real)
    key = (d.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0xFFFFFFFF - o)
    key = tl.max(tl.where(real & (d >= 0), key, 0), 0)
    tl.atomic_max(best + row * most + i, key, mask=key > 0)


# Nearest points -----------------------------------------------------------------------------------


@triton.jit
def _at(values, column, chosen):
    """One value of each row."""
    return tl.sum(tl.where(column[None, :] == chosen[:, None], values, 0), 1)


@triton.jit
def nearest(
    pos, query, ptr, query_ptr, few, todo, out, k, blocks,
    D: tl.constexpr, BQ: tl.constexpr, BP: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The nearest points of queries, of those that `todo` tells; all of a cloud are looked at."""
    cloud = (tl.program_id(0) // blocks).to(tl.int64)
    begin, first = tl.load(ptr + cloud), tl.load(query_ptr + cloud)
    size = (tl.load(ptr + cloud + 1) - begin).to(tl.int32)
    if few is None:
        asked = (tl.load(query_ptr + cloud + 1) - first).to(tl.int32)
    else:
        asked = tl.load(few + cloud).to(tl.int32)
    q = (tl.program_id(0) % blocks) * BQ + tl.arange(0, BQ)
    asks = q < asked
    if todo is not None:
        asks = asks & (tl.load(todo + first + q, asks, 0).to(tl.int32) != 0)
    size = tl.where(tl.max(asks.to(tl.int32), 0) > 0, size, 0)
    qx, qy, qz = _load(query + first * D, q, asks, D)
    column = tl.arange(0, BK)
    best = tl.full([BQ, BK], float("inf"), tl.float32)
    index = tl.zeros([BQ, BK], tl.int32)
    for start in range(0, size, BP):
        p = start + tl.arange(0, BP)
        x, y, z = _load(pos + begin * D, p, p < size, D)
        d = _distance(x[None, :], y[None, :], z[None, :], qx[:, None], qy[:, None], qz[:, None], D)
        d = tl.where((p < size)[None, :], d, float("inf"))
        new_best, new_index = tl.full([BQ, BK], float("inf"), tl.float32), index
        for j in range(k):
            a, old = tl.min(best, 1, return_indices=True)
            b, new = tl.min(d, 1, return_indices=True)
            keeps = a <= b  # of equals the one of the tile before, whose index is lower
            found = tl.where(keeps, _at(index, column, old), start + new)
            value = tl.where(keeps, a, b)
            best = tl.where(keeps[:, None] & (column[None, :] == old[:, None]), float("inf"), best)
            taken = (p[None, :] == (start + new)[:, None]) & (keeps == 0)[:, None]
            d = tl.where(taken, float("inf"), d)
            new_best = tl.where((column == j)[None, :], value[:, None], new_best)
            new_index = tl.where((column == j)[None, :], found[:, None], new_index)
        best, index = new_best, new_index
    for j in range(size, k):  # a small cloud repeats its points
        again = _at(index, column, q * 0 + j % tl.maximum(size, 1))
        index = tl.where((column == j)[None, :], again[:, None], index)
    at = (first + q)[:, None] * k + column[None, :]
    tl.store(out + at, begin + index, asks[:, None] & (column < k)[None, :])


@triton.jit
def _cell(x, low, side, number):
    cell = tl.maximum(tl.floor((x - low) / side), 0.0)
    return tl.minimum(cell, (number - 1).to(tl.float32)).to(tl.int32)


@triton.jit
def _gap(x, low, side, cell, number, reach):
    """How far it is at least to what lies beyond the cells that were looked at, along an axis."""
    before = tl.where(cell - reach <= 0, float("inf"), x - (low + (cell - reach) * side))
    behind = low + (cell + reach + 1) * side - x
    return tl.minimum(before, tl.where(cell + reach >= number - 1, float("inf"), behind))


@triton.jit(do_not_specialize=["queries"])
def nearest_cells(
    pos, order, starts, query, low, side, number, out, todo, queries, k,
    D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr, REACH: tl.constexpr,
):  # fmt: skip
    """The nearest points of a cloud's queries, by cells, and which of the queries are unsure.

    Neighbours are held as whole numbers, the distance above the index, in no order: what is nearer
    than the farthest one takes its place.
    """
    q = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    asks = q < queries
    x, y, z = _load(query, q, asks, D)
    step, nx = tl.load(side), tl.load(number)
    ny, nz = nx * 0 + 1, nx * 0 + 1
    lx, ly, lz = tl.load(low), step * 0.0, step * 0.0
    if D > 1:
        ny, ly = tl.load(number + 1), tl.load(low + 1)
    if D > 2:
        nz, lz = tl.load(number + 2), tl.load(low + 2)
    cx, cy, cz = _cell(x, lx, step, nx), _cell(y, ly, step, ny), _cell(z, lz, step, nz)
    column = tl.arange(0, BK)
    none = (tl.zeros([BQ, BK], tl.int64) + 0x7F800000 << 32) + (0xFFFFFFFF - column.to(tl.int64))[
        None, :
    ]
    # Columns beyond k hold what is nearer than all, and is never replaced.
    none = tl.where((column < k)[None, :], none, -1 - column.to(tl.int64)[None, :])
    kept, unsure = none, asks
    for reach in range(1, REACH + 1):
        kept = tl.where(unsure[:, None], none, kept)
        wide_y, wide_z = 1, 1
        if D > 1:
            wide_y = 2 * reach + 1
        if D > 2:
            wide_z = 2 * reach + 1
        for row in range(wide_y * wide_z):
            ay, az = cy, cz
            if D > 1:
                ay = cy + row % wide_y - reach
            if D > 2:
                az = cz + row // wide_y - reach
            there = unsure & (ay >= 0) & (ay < ny) & (az >= 0) & (az < nz)
            line = (az * ny + ay) * nx
            begin = tl.load(starts + line + tl.maximum(cx - reach, 0), there, 0)
            end = tl.load(starts + line + tl.minimum(cx + reach, nx - 1) + 1, there, 0)
            for i in range(tl.max(end - begin, 0).to(tl.int32)):
                here = begin + i < end
                px, py, pz = _load(pos, begin + i, here, D)
                d = _distance(px, py, pz, x, y, z, D)
                index = tl.load(order + begin + i, here, 0)
                key = (d.to(tl.int32, bitcast=True).to(tl.int64) << 32) | index
                farthest = tl.max(kept, 1)
                nearer = here & (key < farthest)
                place = nearer[:, None] & (kept == farthest[:, None])
                kept = tl.where(place, key[:, None], kept)
        gap = _gap(x, lx, step, cx, nx, reach)
        if D > 1:
            gap = tl.minimum(gap, _gap(y, ly, step, cy, ny, reach))
        if D > 2:
            gap = tl.minimum(gap, _gap(z, lz, step, cz, nz, reach))
        # A point that rounding put into the next cell is off by less than this.
        gap = tl.maximum(gap - 0.01 * step, 0.0)
        worst = (tl.max(kept, 1) >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        unsure = unsure & ~(worst < 0.999 * gap * gap)
    tl.store(todo + q, unsure, asks)
    kept = tl.where((column < k)[None, :], kept, 0x7FFFFFFFFFFFFFFF)
    for j in range(k):
        key = tl.min(kept, 1)
        tl.store(out + q * k + j, key & 0xFFFFFFFF, asks)
        kept = tl.where(kept == key[:, None], 0x7FFFFFFFFFFFFFFF, kept)
