"""The context cluster on a GPU, in Triton: between the linear maps, forward and backward.

Layout. `fv` has a row a point: f of all heads, then v of all heads, [N, 2, H, c]. Points lie region
by region. The steps are those of `reference.py`; centres are few, so they are gone through one by
one, and what belongs to a centre is a sum over points or channels of numbers that are on the chip
already. All of it is float32, whatever features are: matrix units would want 16 centres, and for
float32 three products each.

Regions of few points (`tile_*`): a program takes BR regions that follow one another, of up to BP
points, and one head, as an array [BR, BP, BC] of f and one of v: features are read once and written
once, and regions, though together, know nothing of each other.

Regions of any size (`chunk_*`): points are cut into chunks that end where regions do, and a program
takes one chunk and one head in steps of BP points. Sums over a region are written chunk by chunk
and added up by `add_chunks` in the order of the chunks (`gpu_chunks.py` numbers them).

All sums are taken in a fixed order, without atomics: a result is the same each time.

Proved by Triton's interpreter on a CPU, and compiled for NVIDIA's 8.0 and 9.0. Sizes of blocks and
numbers of warps were chosen by the registers that these need, and were not tuned on a card.
"""

# Triton's language has no types.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from pointcluster.ops.gpu_chunks import chunk_of as _chunk
from pointcluster.ops.gpu_chunks import first_chunk as _first_chunk
from pointcluster.ops.gpu_chunks import slice_of as _region

LEAST = tl.constexpr(1e-8)
"""The least length of a vector, as `precision.EPS`."""


@triton.jit
def _length(x, AXIS: tl.constexpr):
    return tl.maximum(tl.sqrt(tl.sum(x * x, AXIS)), LEAST)


@triton.jit
def _larger(score, best):
    """Whether a score beats the best so far: an equal one does not, what is no number does."""
    return (score > best) | ((score != score) & (best == best))


# Regions of few points ----------------------------------------------------------------------------


@triton.jit
def _regions(ptr, tile, regions, size, points, BR: tl.constexpr, BP: tl.constexpr):
    """The tile's regions, whether they are there, their numbers of points, the tile's first point,
    and its points counted from that one: numbers of 32 bits, of which a program has thousands."""
    region = tile * BR + tl.arange(0, BR)
    there = region < regions
    if ptr is None:
        begin = tile * BR * size
        low, high = region * size, region * size + size
    else:
        begin = tl.load(ptr + tile * BR)
        low, high = tl.load(ptr + region, there, 0), tl.load(ptr + region + 1, there, 0)
    number = tl.where(there, tl.minimum(high, points) - low, 0).to(tl.int32)
    p = tl.arange(0, BP)
    point = tl.where(there, low - begin, 0).to(tl.int32)[:, None] + p[None, :]
    return region, there, number, begin, point, p[None, :] < number[:, None]


@triton.jit
def _weights(
    group, filled, region, there, number, m, k,
    M: tl.constexpr, SHARED: tl.constexpr, BP: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """What each point counts in the mean that centre m is, [BR, BP]: no number where a grouping
    names points that its region does not have."""
    row = region * 0 + m if SHARED else region * M + m
    counting = tl.load(filled + row, there, 0)
    weight = tl.zeros([region.shape[0], BP], tl.float32)
    wrong = tl.zeros([region.shape[0]], tl.int32)
    for start in range(0, k, BK):
        j = start + tl.arange(0, BK)
        counts = (j[None, :] < counting[:, None]) & (j < k)[None, :]
        near = tl.load(group + row[:, None] * k + j[None, :], counts, -1).to(tl.int32)  # [BR, BK]
        hit = tl.arange(0, BP)[None, :, None] == near[:, None, :]
        weight += tl.sum(tl.where(hit, 1.0, 0.0), 2)
        wrong += tl.sum((counts & ((near < 0) | (near >= number[:, None]))).to(tl.int32), 1)
    weight = weight / tl.maximum(counting, 1).to(tl.float32)[:, None]
    return tl.where((wrong > 0)[:, None], float("nan"), weight)


@triton.jit(do_not_specialize=["regions", "points"])
def tile_forward(
    fv, ptr, group, filled, closed, alpha, beta, y, index, similarity,
    regions, points, size, heads, channels, k,
    M: tl.constexpr, SHARED: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Regions of few points: the four steps."""
    head = tl.program_id(0) % heads
    tile = (tl.program_id(0) // heads).to(tl.int64)
    region, there, number, begin, point, real = _regions(ptr, tile, regions, size, points, BR, BP)
    width, c = heads * channels, tl.arange(0, BC)[None, None, :]
    mask = real[:, :, None] & (c < channels)
    fv += begin * (2 * width) + head * channels
    at = point[:, :, None] * (2 * width) + c
    f = tl.load(fv + at, mask, 0.0).to(tl.float32)
    v = tl.load(fv + width + at, mask, 0.0).to(tl.float32)
    a, b = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    length = _length(f, 2)
    best = tl.full([BR, BP], float("-inf"), tl.float32)
    chosen = tl.zeros([BR, BP], tl.int32)
    for m in range(M):  # propose, assign
        weight = _weights(group, filled, region, there, number, m, k, M, SHARED, BP, BK)
        center = tl.sum(weight[:, :, None] * f, 1)  # [BR, BC]
        cos = tl.sum(f * center[:, None, :], 2) / (length * _length(center, 1)[:, None])
        score = b + a * cos
        if closed is not None:
            row = region * 0 + m if SHARED else region * M + m
            shut = tl.load(closed + row, there, 0).to(tl.int32) != 0
            score = tl.where(shut[:, None], float("-inf"), score)
        better = _larger(score, best)
        best, chosen = tl.where(better, score, best), tl.where(better, m, chosen)
    s = tl.sigmoid(best)
    out = tl.zeros([BR, BP, BC], tl.float32)
    for m in range(M):  # aggregate, dispatch
        weight = _weights(group, filled, region, there, number, m, k, M, SHARED, BP, BK)
        meets = tl.where(real & (chosen == m), s, 0.0)
        h = tl.sum((weight + meets)[:, :, None] * v, 1) / (1.0 + tl.sum(meets, 1))[:, None]
        out += meets[:, :, None] * h[:, None, :]
    y += begin * width + head * channels
    tl.store(y + point[:, :, None] * width + c, out.to(y.dtype.element_ty), mask)
    tl.store(index + begin * heads + head + point * heads, chosen.to(tl.int64), real)
    tl.store(similarity + begin * heads + head + point * heads, s, real)


@triton.jit(do_not_specialize=["regions", "points"])
def tile_backward(
    fv, ptr, group, filled, alpha, index, similarity, grad, to_fv, to_numbers, y,
    regions, points, size, heads, channels, k,
    M: tl.constexpr, SHARED: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Regions of few points: the gradients of f, v, alpha and beta, and y once more."""
    head = tl.program_id(0) % heads
    tile = (tl.program_id(0) // heads).to(tl.int64)
    region, there, number, begin, point, real = _regions(ptr, tile, regions, size, points, BR, BP)
    width, c = heads * channels, tl.arange(0, BC)[None, None, :]
    mask = real[:, :, None] & (c < channels)
    first, first_y = begin * (2 * width) + head * channels, begin * width + head * channels
    at, at_y = point[:, :, None] * (2 * width) + c, point[:, :, None] * width + c
    f = tl.load(fv + first + at, mask, 0.0).to(tl.float32)
    v = tl.load(fv + first + width + at, mask, 0.0).to(tl.float32)
    d = tl.load(grad + first_y + at_y, mask, 0.0).to(tl.float32)
    s = tl.load(similarity + begin * heads + head + point * heads, real, 0.0)
    chosen = tl.load(index + begin * heads + head + point * heads, real, 0).to(tl.int32)
    a, length = tl.load(alpha).to(tl.float32), _length(f, 2)
    to_f, to_v = tl.zeros([BR, BP, BC], tl.float32), tl.zeros([BR, BP, BC], tl.float32)
    out = tl.zeros([BR, BP, BC], tl.float32)
    to_alpha, to_beta = tl.zeros([BR, BP], tl.float32), tl.zeros([BR, BP], tl.float32)
    for m in range(M):
        weight = _weights(group, filled, region, there, number, m, k, M, SHARED, BP, BK)
        hot = real & (chosen == m)
        meets = tl.where(hot, s, 0.0)
        mass = 1.0 + tl.sum(meets, 1)
        center = tl.sum(weight[:, :, None] * f, 1)  # [BR, BC]
        reach = _length(center, 1)
        h = tl.sum((weight + meets)[:, :, None] * v, 1) / mass[:, None]
        out += meets[:, :, None] * h[:, None, :]
        # y = s h, and h = (g + sum of s v) / mass
        to_sum = tl.sum(meets[:, :, None] * d, 1) / mass[:, None]
        to_v += (weight + meets)[:, :, None] * to_sum[:, None, :]
        to_s = (
            tl.sum(d * h[:, None, :] + v * to_sum[:, None, :], 2) - tl.sum(to_sum * h, 1)[:, None]
        )
        # s = sigmoid(beta + alpha cos), and cos = f c / (|f| |c|)
        to_score = tl.where(hot, to_s * s * (1.0 - s), 0.0)
        lengths = length * reach[:, None]
        cos = tl.sum(f * center[:, None, :], 2) / lengths
        turn = tl.where(hot, to_score * cos, 0.0)
        to_alpha += turn
        to_beta += to_score
        pull = tl.where(reach > LEAST, a * tl.sum(turn, 1) / (reach * reach), 0.0)
        q = a * to_score / lengths
        to_center = tl.sum(q[:, :, None] * f, 1) - pull[:, None] * center
        pull = tl.where(length > LEAST, a * turn / (length * length), 0.0)
        to_f += q[:, :, None] * center[:, None, :] - pull[:, :, None] * f
        to_f += weight[:, :, None] * to_center[:, None, :]
    tl.store(to_fv + first + at, to_f.to(to_fv.dtype.element_ty), mask)
    tl.store(to_fv + first + width + at, to_v.to(to_fv.dtype.element_ty), mask)
    tl.store(y + first_y + at_y, out.to(y.dtype.element_ty), mask)
    at = to_numbers + tl.program_id(0) * 2
    tl.store(at, tl.sum(tl.sum(to_alpha, 1), 0))
    tl.store(at + 1, tl.sum(tl.sum(to_beta, 1), 0))


# Regions of any size ------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["regions", "points"])
def centers(
    fv, ptr, group, filled, center, regions, points, size, wide, k,
    M: tl.constexpr, SHARED: tl.constexpr, BK: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Propose: the means of the groupings, of f and v of all heads, [R, M, 2 W]."""
    slot = tl.program_id(0).to(tl.int64)
    region = slot // M
    low, high = _region(ptr, region, size, points)
    row = slot % M if SHARED else slot
    number = tl.load(filled + row)
    c, j = tl.program_id(1) * BW + tl.arange(0, BW), tl.arange(0, BK)
    total = tl.zeros([BW], tl.float32)
    wrong = 0
    for start in range(0, k, BK):
        counts = (start + j < k) & (start + j < number)
        near = low + tl.load(group + row * k + start + j, counts, 0)
        inside = counts & (near >= low) & (near < high)
        wrong += tl.sum((counts & ~inside).to(tl.int32), 0)
        mask = inside[:, None] & (c < wide)[None, :]
        total += tl.sum(
            tl.load(fv + near[:, None] * wide + c[None, :], mask, 0.0).to(tl.float32), 0
        )
    total = total / tl.maximum(number, 1).to(tl.float32)
    total = tl.where(wrong > 0, float("nan"), total)
    tl.store(center + slot * wide + c, total, c < wide)


@triton.jit
def _row(rows, m, value):
    """A row among zeros: what is added to an array [BM, BC] for centre m."""
    return tl.where((rows == m)[:, None], value[None, :], 0.0)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_assign(
    fv, ptr, center, closed, alpha, beta, index, similarity, parts, masses,
    regions, points, size, heads, channels, chunk, halvings,
    M: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Assign, and a chunk's share of what is to be aggregated: [G, H, M, c] and [G, H, M]."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, number = _chunk(ptr, t, regions, size, points, chunk, halvings)
    rows, c, width = tl.arange(0, BM), tl.arange(0, BC), heads * channels
    a, b = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    middle = center + region * M * (2 * width) + head * channels + c
    fv += begin * (2 * width) + head * channels
    index += begin * heads + head
    similarity += begin * heads + head
    total, mass = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    for step in range(tl.cdiv(number, BP)):
        p = step * BP + tl.arange(0, BP)
        real = p < number
        mask = real[:, None] & (c < channels)[None, :]
        at = p[:, None] * (2 * width) + c[None, :]
        f = tl.load(fv + at, mask, 0.0).to(tl.float32)
        v = tl.load(fv + width + at, mask, 0.0).to(tl.float32)
        length = _length(f, 1)
        best, chosen = tl.full([BP], float("-inf"), tl.float32), tl.zeros([BP], tl.int32)
        for m in range(M):
            to = tl.load(middle + m * (2 * width), c < channels, 0.0)
            score = b + a * (tl.sum(f * to[None, :], 1) / (length * _length(to, 0)))
            if closed is not None:
                row = region * 0 + m if SHARED else region * M + m
                score = tl.where(tl.load(closed + row).to(tl.int32) != 0, float("-inf"), score)
            better = _larger(score, best)
            best, chosen = tl.where(better, score, best), tl.where(better, m, chosen)
        s = tl.sigmoid(best)
        tl.store(index + p * heads, chosen.to(tl.int64), real)
        tl.store(similarity + p * heads, s, real)
        for m in range(M):
            meets = tl.where(real & (chosen == m), s, 0.0)
            total += _row(rows, m, tl.sum(meets[:, None] * v, 0))
            mass += tl.where(rows == m, tl.sum(meets, 0), 0.0)
    slot = (t * heads + head) * M + rows
    within = (rows < M)[:, None] & (c < channels)[None, :]
    tl.store(parts + slot[:, None] * channels + c[None, :], total, within)
    tl.store(masses + slot, mass, rows < M)


@triton.jit(do_not_specialize=["regions", "points"])
def add_chunks(
    parts, masses, ptr, center, h, mass, to_mass, alpha, out,
    regions, points, size, heads, channels, chunk,
    M: tl.constexpr, BQ: tl.constexpr, BC: tl.constexpr, WHAT: tl.constexpr,
):  # fmt: skip
    """What the chunks of a region add up to, and what is made of it, [R, H, M, c]:

    - `"aggregate"`: what clusters have learnt, h, and their mass;
    - `"gradient"`: the gradient for the sum in h, and beside it that for the mass;
    - `"center"`: the gradient for the centre's f.
    """
    slot = tl.program_id(0).to(tl.int64)  # region, head, centre
    region, head, m = slot // (heads * M), slot // M % heads, slot % M
    low, high = _region(ptr, region, size, points)
    if ptr is None:
        first = _first_chunk(low, region, size, chunk)
    else:
        first = _first_chunk(low, region, None, chunk)
    number = tl.cdiv(high - low, chunk).to(tl.int32)
    q, c, width = tl.arange(0, BQ), tl.arange(0, BC), heads * channels
    real = c < channels
    total, weight = tl.zeros([BC], tl.float32), tl.zeros([BQ], tl.float32)
    for start in range(0, number, BQ):
        there = start + q < number
        row = ((first + start + q) * heads + head) * M + m
        at = row[:, None] * channels + c[None, :]
        total += tl.sum(tl.load(parts + at, there[:, None] & real[None, :], 0.0), 0)
        if WHAT != "gradient":
            weight += tl.load(masses + row, there, 0.0)
    middle = center + (region * M + m) * (2 * width) + head * channels + c
    if WHAT == "aggregate":
        whole = 1.0 + tl.sum(weight, 0)
        total = (tl.load(middle + width, real, 0.0) + total) / whole
        tl.store(mass + slot, whole)
    elif WHAT == "gradient":
        total = total / tl.load(mass + slot)
        met = tl.sum(total * tl.load(h + slot * channels + c, real, 0.0), 0)
        tl.store(to_mass + slot, -met)
    else:
        f = tl.load(middle, real, 0.0)
        reach = tl.maximum(tl.sqrt(tl.sum(f * f, 0)), LEAST)
        pull = tl.load(alpha).to(tl.float32) * tl.sum(weight, 0) / (reach * reach)
        total = total - tl.where(reach > LEAST, pull, 0.0) * f
    tl.store(out + slot * channels + c, total, real)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_dispatch(
    ptr, index, similarity, h, y,
    regions, points, size, heads, channels, chunk, halvings,
    M: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Dispatch: s h for each point."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, number = _chunk(ptr, t, regions, size, points, chunk, halvings)
    c, width = tl.arange(0, BC), heads * channels
    y += begin * width + head * channels
    h += (region * heads + head) * M * channels
    index += begin * heads + head
    similarity += begin * heads + head
    for step in range(tl.cdiv(number, BP)):
        p = step * BP + tl.arange(0, BP)
        real = p < number
        mask = real[:, None] & (c < channels)[None, :]
        s = tl.load(similarity + p * heads, real, 0.0)
        chosen = tl.load(index + p * heads, real, 0).to(tl.int32)
        value = tl.load(h + chosen[:, None] * channels + c[None, :], mask, 0.0)
        out = (s[:, None] * value).to(y.dtype.element_ty)
        tl.store(y + p[:, None] * width + c[None, :], out, mask)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_gather(
    ptr, index, similarity, value, parts, masses,
    regions, points, size, heads, channels, chunk, halvings, stride,
    M: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A chunk's share of the sums of s and of s times a value, whose rows are `stride` apart."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    _, begin, number = _chunk(ptr, t, regions, size, points, chunk, halvings)
    rows, c = tl.arange(0, BM), tl.arange(0, BC)
    value += begin * stride + head * channels
    index += begin * heads + head
    similarity += begin * heads + head
    total, mass = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    for step in range(tl.cdiv(number, BP)):
        p = step * BP + tl.arange(0, BP)
        real = p < number
        mask = real[:, None] & (c < channels)[None, :]
        x = tl.load(value + p[:, None] * stride + c[None, :], mask, 0.0).to(tl.float32)
        s = tl.load(similarity + p * heads, real, 0.0)
        chosen = tl.load(index + p * heads, real, 0).to(tl.int32)
        for m in range(M):
            meets = tl.where(real & (chosen == m), s, 0.0)
            total += _row(rows, m, tl.sum(meets[:, None] * x, 0))
            mass += tl.where(rows == m, tl.sum(meets, 0), 0.0)
    slot = (t * heads + head) * M + rows
    within = (rows < M)[:, None] & (c < channels)[None, :]
    tl.store(parts + slot[:, None] * channels + c[None, :], total, within)
    tl.store(masses + slot, mass, rows < M)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_backward(
    fv, ptr, center, h, to_sum, to_mass, alpha, index, similarity, grad,
    to_fv, to_numbers, y, parts, masses,
    regions, points, size, heads, channels, chunk, halvings,
    M: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradients for f and v but for those through the means, for alpha and beta, and a chunk's
    share of those for the centres; and y once more."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, number = _chunk(ptr, t, regions, size, points, chunk, halvings)
    rows, c, width = tl.arange(0, BM), tl.arange(0, BC), heads * channels
    within = c < channels
    middle = center + region * M * (2 * width) + head * channels + c
    first = (region * heads + head) * M
    fv += begin * (2 * width) + head * channels
    to_fv += begin * (2 * width) + head * channels
    grad += begin * width + head * channels
    y += begin * width + head * channels
    index += begin * heads + head
    similarity += begin * heads + head
    a = tl.load(alpha).to(tl.float32)
    total, turned = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    to_beta = tl.zeros([BP], tl.float32)
    for step in range(tl.cdiv(number, BP)):
        p = step * BP + tl.arange(0, BP)
        real = p < number
        mask = real[:, None] & within[None, :]
        at, at_y = p[:, None] * (2 * width) + c[None, :], p[:, None] * width + c[None, :]
        f = tl.load(fv + at, mask, 0.0).to(tl.float32)
        v = tl.load(fv + width + at, mask, 0.0).to(tl.float32)
        d = tl.load(grad + at_y, mask, 0.0).to(tl.float32)
        s = tl.load(similarity + p * heads, real, 0.0)
        chosen = tl.load(index + p * heads, real, 0).to(tl.int32)
        length = _length(f, 1)
        to_f, to_v = tl.zeros([BP, BC], tl.float32), tl.zeros([BP, BC], tl.float32)
        out = tl.zeros([BP, BC], tl.float32)
        for m in range(M):
            hot = real & (chosen == m)
            meets = tl.where(hot, s, 0.0)
            to = tl.load(middle + m * (2 * width), within, 0.0)
            cluster = tl.load(h + (first + m) * channels + c, within, 0.0)
            through = tl.load(to_sum + (first + m) * channels + c, within, 0.0)
            out += meets[:, None] * cluster[None, :]
            to_v += meets[:, None] * through[None, :]
            to_s = tl.sum(d * cluster[None, :] + v * through[None, :], 1)
            to_s += tl.load(to_mass + first + m)
            to_score = tl.where(hot, to_s * s * (1.0 - s), 0.0)
            lengths = length * _length(to, 0)
            turn = tl.where(hot, to_score * (tl.sum(f * to[None, :], 1) / lengths), 0.0)
            q = a * to_score / lengths
            pull = tl.where(length > LEAST, a * turn / (length * length), 0.0)
            to_f += q[:, None] * to[None, :] - pull[:, None] * f
            total += _row(rows, m, tl.sum(q[:, None] * f, 0))
            turned += tl.where(rows == m, tl.sum(turn, 0), 0.0)
            to_beta += to_score
        tl.store(to_fv + at, to_f.to(to_fv.dtype.element_ty), mask)
        tl.store(to_fv + width + at, to_v.to(to_fv.dtype.element_ty), mask)
        tl.store(y + at_y, out.to(y.dtype.element_ty), mask)
    slot = (t * heads + head) * M + rows
    mask = (rows < M)[:, None] & within[None, :]
    tl.store(parts + slot[:, None] * channels + c[None, :], total, mask)
    tl.store(masses + slot, turned, rows < M)
    tl.store(to_numbers + (t * heads + head) * 2, tl.sum(turned, 0))
    tl.store(to_numbers + (t * heads + head) * 2 + 1, tl.sum(to_beta, 0))


@triton.jit(do_not_specialize=["regions", "points"])
def spread(
    to_fv, ptr, group, filled, to_center, to_sum, regions, points, size, heads, channels, k,
    M: tl.constexpr, SHARED: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradients through the means, to the few points that these are of: one after another, as a
    point may be in several, and added to what is there already."""
    head = tl.program_id(0) % heads
    region = (tl.program_id(0) // heads).to(tl.int64)
    low, high = _region(ptr, region, size, points)
    c, width = tl.arange(0, BC), heads * channels
    real = c < channels
    for m in range(M):
        slot = (region * heads + head) * M + m
        row = m if SHARED else region * M + m
        number = tl.load(filled + row).to(tl.int32)
        share = 1.0 / tl.maximum(number, 1).to(tl.float32)
        f = tl.load(to_center + slot * channels + c, real, 0.0) * share
        v = tl.load(to_sum + slot * channels + c, real, 0.0) * share
        for j in range(tl.minimum(number, k)):
            near = low + tl.load(group + row * k + j)
            inside = real & (near >= low) & (near < high)
            at = to_fv + near * (2 * width) + head * channels + c
            tl.store(
                at, (tl.load(at, inside, 0.0).to(tl.float32) + f).to(at.dtype.element_ty), inside
            )
            at += width
            tl.store(
                at, (tl.load(at, inside, 0.0).to(tl.float32) + v).to(at.dtype.element_ty), inside
            )
            tl.debug_barrier()
