"""The context cluster on a GPU, in Triton: between the linear maps, forward and backward.

Layout. `fv` has a row a point: f of all heads, then v of all heads, [N, 2, H, c]. Points lie region
by region, and a *slot* is one centre of one region. Everything is told apart by points and slots:
`same` says that a point lies in a slot's region, `count` how often a point counts in a slot's mean,
`meets` holds the similarity where a point was assigned to a slot, and zeros elsewhere. The steps of
`reference.py` are then products with these matrices, on the tensor cores in the type of the
features, with sums, similarities and what is derived from them in float32.

Regions of few points (`_tile_*`): a program takes BR regions that follow one another and one head.
Its points, up to BP, and its slots, up to BS, stay on the chip: features are read once and written
once. Where several regions share a program, what is not a number would meet zeros of other regions'
rows in a product; so it is taken out first and marks its region's results in the end.

Regions of any size (`_chunk_*`): points are cut into chunks of up to CHUNK points that end where
regions do, and a program takes one chunk and one head in steps of BP points. Sums over a region are
written chunk by chunk and added up by `_add_chunks` in the order of the chunks. Chunks are numbered
such that nobody has to know the sizes before: region r begins with chunk `ptr[r] // CHUNK + r`,
which leaves room for all of its chunks, and some numbers empty.

All sums are taken in a fixed order, without atomics: a result is the same each time.

Proved by Triton's interpreter on a CPU; sizes of blocks and numbers of warps were not tuned on a
card.
"""

from __future__ import annotations

import triton
import triton.language as tl

LEAST = tl.constexpr(1e-8)
"""The least length of a vector, as `precision.EPS`."""


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    """A product with sums in float32; `"wide"` is for the interpreter, which reads bfloat16 as
    whole numbers there."""
    if PRECISION == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _squares(x):
    return tl.sum(x * x, 1)


# Regions of few points ----------------------------------------------------------------------------


@triton.jit
def _slots(ptr, group, filled, tile, regions, size, points, k, M: tl.constexpr, SHARED: tl.constexpr,
           BR: tl.constexpr, BP: tl.constexpr, BS: tl.constexpr):  # fmt: skip
    """The tile's first point and number of points, its slots, and how its points count in them."""
    slot = tl.arange(0, BS)
    region = tile * BR + slot // M  # int64, as the tile
    there = (slot < BR * M) & (region < regions)
    if ptr is None:
        begin = tile * BR * size
        low, high = region * size, region * size + size
    else:
        begin = tl.load(ptr + tile * BR)
        low = tl.load(ptr + region, there, 0)
        high = tl.load(ptr + region + 1, there, 0)
    low, high = tl.maximum(low, 0), tl.minimum(high, points)
    low = tl.where(there, low - begin, BP).to(tl.int32)
    high = tl.where(there, high - begin, 0).to(tl.int32)
    p = tl.arange(0, BP)
    same = (p[:, None] >= low[None, :]) & (p[:, None] < high[None, :])  # [BP, BS]
    row = slot % M if SHARED else region * M + slot % M
    number = tl.load(filled + row, there, 1)
    count = tl.zeros([BP, BS], tl.float32)
    inside = tl.zeros([BS], tl.int32)
    for j in range(k):
        near = tl.load(group + row * k + j, there & (j < number), -1).to(tl.int32)
        hit = same & (p[:, None] - low[None, :] == near[None, :]) & (near >= 0)[None, :]
        count += tl.where(hit, 1.0, 0.0)
        inside += ((near >= 0) & (near < high - low)).to(tl.int32)
    wrong = there & (inside != tl.minimum(number, k))
    return begin, low, high, there, row, same, count, number, wrong


@triton.jit
def _assign(f, center, same, open_, alpha, beta, PRECISION: tl.constexpr):
    """Lengths, cosines [BP, BS] and scores, which are -inf where a point cannot go."""
    wide = f.to(tl.float32)
    length = tl.maximum(tl.sqrt(_squares(wide)), LEAST)
    middle = center.to(tl.float32)
    reach = tl.maximum(tl.sqrt(_squares(middle)), LEAST)
    cos = _dot(f, tl.trans(center), PRECISION) / (length[:, None] * reach[None, :])
    score = tl.where(same & open_[None, :], beta + alpha * cos, float("-inf"))
    return length, reach, cos, score


@triton.jit
def _finite(f, v):
    """0 for a point with finite features, else no number."""
    return tl.sum(f.to(tl.float32) * 0.0 + v.to(tl.float32) * 0.0, 1)


@triton.jit
def _spoiled(same, point, slot):
    """Points whose region has a bad point or a bad slot."""
    bad = tl.max(tl.where(same & point[:, None], 1, 0), 0) + slot.to(tl.int32)
    return tl.max(tl.where(same, bad[None, :], 0), 1) > 0


@triton.jit(do_not_specialize=["regions", "points"])
def tile_forward(
    fv, ptr, group, filled, closed, alpha, beta, y, index, similarity,
    regions, points, size, heads, channels, k,
    M: tl.constexpr, SHARED: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Regions of few points: the four steps."""
    head = tl.program_id(0) % heads
    tile = (tl.program_id(0) // heads).to(tl.int64)
    begin, low, high, there, row, same, count, number, wrong = _slots(
        ptr, group, filled, tile, regions, size, points, k, M, SHARED, BR, BP, BS
    )
    dtype: tl.constexpr = fv.dtype.element_ty
    p, c, width = tl.arange(0, BP), tl.arange(0, BC), heads * channels
    real = p < tl.max(high, 0)
    mask = real[:, None] & (c < channels)[None, :]
    at = (begin + p)[:, None] * (2 * width) + head * channels + c[None, :]
    f = tl.load(fv + at, mask, 0.0)
    v = tl.load(fv + at + width, mask, 0.0)
    if BR > 1:
        bad = _finite(f, v) != 0.0
        f, v = tl.where(bad[:, None], 0.0, f).to(dtype), tl.where(bad[:, None], 0.0, v).to(dtype)

    # propose
    weight, share = tl.trans(count).to(dtype), 1.0 / tl.maximum(number, 1).to(tl.float32)
    center = (_dot(weight, f, PRECISION) * share[:, None]).to(dtype)
    g = _dot(weight, v, PRECISION) * share[:, None]  # [BS, BC]

    # assign
    open_ = there
    if closed is not None:
        open_ = there & (tl.load(closed + row, there, 0).to(tl.int32) == 0)
    a, b = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    length, reach, cos, score = _assign(f, center, same, open_, a, b, PRECISION)
    best, chosen = tl.max(score, 1), tl.argmax(score, 1)
    s = tl.sigmoid(best)
    slot = tl.arange(0, BS)
    meets = tl.where((slot[None, :] == chosen[:, None]) & real[:, None], s[:, None], 0.0).to(dtype)

    # aggregate, dispatch
    mass = 1.0 + tl.sum(meets.to(tl.float32), 0)
    h = (g + _dot(tl.trans(meets), v, PRECISION)) / mass[:, None]
    out = _dot(meets, h.to(dtype), PRECISION)
    if BR > 1:
        spoiled = _spoiled(same, bad, wrong)
        out = tl.where(spoiled[:, None], float("nan"), out)
        s = tl.where(spoiled, float("nan"), s)
    elif tl.max(wrong.to(tl.int32), 0) > 0:
        out, s = out + float("nan"), s + float("nan")
    row_y = (begin + p)[:, None] * width + head * channels + c[None, :]
    tl.store(y + row_y, out.to(dtype), mask)
    tl.store(index + (begin + p) * heads + head, (chosen % M).to(tl.int64), real)
    tl.store(similarity + (begin + p) * heads + head, s, real)


@triton.jit(do_not_specialize=["regions", "points"])
def tile_backward(
    fv, ptr, group, filled, alpha, index, similarity, grad, to_fv, to_numbers, y,
    regions, points, size, heads, channels, k,
    M: tl.constexpr, SHARED: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    BS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Regions of few points: the gradients of f, v, alpha and beta, and y once more."""
    head = tl.program_id(0) % heads
    tile = (tl.program_id(0) // heads).to(tl.int64)
    begin, low, high, there, row, same, count, number, wrong = _slots(
        ptr, group, filled, tile, regions, size, points, k, M, SHARED, BR, BP, BS
    )
    dtype: tl.constexpr = fv.dtype.element_ty
    p, c, width = tl.arange(0, BP), tl.arange(0, BC), heads * channels
    real = p < tl.max(high, 0)
    mask = real[:, None] & (c < channels)[None, :]
    at = (begin + p)[:, None] * (2 * width) + head * channels + c[None, :]
    at_y = (begin + p)[:, None] * width + head * channels + c[None, :]
    f = tl.load(fv + at, mask, 0.0)
    v = tl.load(fv + at + width, mask, 0.0)
    d = tl.load(grad + at_y, mask, 0.0)
    s = tl.load(similarity + (begin + p) * heads + head, real, 0.0)
    chosen = tl.load(index + (begin + p) * heads + head, real, 0).to(tl.int32)
    if BR > 1:
        bad = (_finite(f, v) + _finite(d, d) + s * 0.0) != 0.0
        f, v = tl.where(bad[:, None], 0.0, f).to(dtype), tl.where(bad[:, None], 0.0, v).to(dtype)
        d, s = tl.where(bad[:, None], 0.0, d).to(dtype), tl.where(bad, 0.0, s)

    # The way there, as far as it is needed
    weight, share = tl.trans(count).to(dtype), 1.0 / tl.maximum(number, 1).to(tl.float32)
    center = (_dot(weight, f, PRECISION) * share[:, None]).to(dtype)
    g = _dot(weight, v, PRECISION) * share[:, None]
    a = tl.load(alpha).to(tl.float32)
    length, reach, cos, _ = _assign(f, center, same, there, a, 0.0, PRECISION)
    hot = same & ((tl.arange(0, BS) % M)[None, :] == chosen[:, None])
    meets = tl.where(hot, s[:, None], 0.0).to(dtype)
    mass = 1.0 + tl.sum(meets.to(tl.float32), 0)
    h = ((g + _dot(tl.trans(meets), v, PRECISION)) / mass[:, None]).to(dtype)

    # y = s h, and h = (g + sum of s v) / mass
    to_sum = _dot(tl.trans(meets), d, PRECISION) / mass[:, None]  # [BS, BC]
    to_mass = -tl.sum(to_sum * h.to(tl.float32), 1)
    narrow = to_sum.to(dtype)
    to_s = _dot(d, tl.trans(h), PRECISION) + _dot(v, tl.trans(narrow), PRECISION) + to_mass[None, :]
    to_v = _dot(meets, narrow, PRECISION)
    to_v += _dot(tl.trans(weight), (to_sum * share[:, None]).to(dtype), PRECISION)

    # s = sigmoid(beta + alpha cos), and cos = f c / (|f| |c|)
    to_score = tl.where(hot, to_s * (s * (1 - s))[:, None], 0.0)
    turn = tl.where(hot, to_score * cos, 0.0)
    q = (a * to_score / (length[:, None] * reach[None, :])).to(dtype)
    middle = center.to(tl.float32)
    pull = tl.where(reach > LEAST, a * tl.sum(turn, 0) / (reach * reach), 0.0)
    to_center = _dot(tl.trans(q), f, PRECISION) - pull[:, None] * middle
    pull = tl.where(length > LEAST, a * tl.sum(turn, 1) / (length * length), 0.0)
    to_f = _dot(q, center, PRECISION) - pull[:, None] * f.to(tl.float32)
    to_f += _dot(tl.trans(weight), (to_center * share[:, None]).to(dtype), PRECISION)

    out = _dot(meets, h, PRECISION)
    to_alpha, to_beta = tl.sum(tl.sum(turn, 1), 0), tl.sum(tl.sum(to_score, 1), 0)
    if BR > 1:
        spoiled = _spoiled(same, bad, wrong)
        to_f = tl.where(spoiled[:, None], float("nan"), to_f)
        to_v = tl.where(spoiled[:, None], float("nan"), to_v)
        out = tl.where(spoiled[:, None], float("nan"), out)
        if tl.max(spoiled.to(tl.int32), 0) > 0:
            to_alpha, to_beta = to_alpha + float("nan"), to_beta + float("nan")
    tl.store(to_fv + at, to_f.to(dtype), mask)
    tl.store(to_fv + at + width, to_v.to(dtype), mask)
    tl.store(y + at_y, out.to(dtype), mask)
    tl.store(to_numbers + (tile * heads + head) * 2, to_alpha)
    tl.store(to_numbers + (tile * heads + head) * 2 + 1, to_beta)


# Regions of any size ------------------------------------------------------------------------------


@triton.jit
def _region(ptr, region, size, points):
    """Where a region begins and ends."""
    if ptr is None:
        low, high = region * size, region * size + size
    else:
        low, high = tl.load(ptr + region), tl.load(ptr + region + 1)
    return tl.maximum(low, 0), tl.minimum(high, points)


@triton.jit
def _first_chunk(low, region, size, chunk):
    """The number of a region's first chunk: `size` is None where regions differ."""
    if size is None:
        first = low // chunk + region
    else:
        first = region * ((size + chunk - 1) // chunk)
    return first


@triton.jit
def _chunk(ptr, t, regions, size, points, chunk, halvings):
    """The region of a chunk, and the points that it begins and ends with."""
    if ptr is None:
        region = t // ((size + chunk - 1) // chunk)
        low, high = _region(ptr, region, size, points)
        begin = low + (t - _first_chunk(low, region, size, chunk)) * chunk
    else:
        region, last = t * 0, t * 0 + regions
        for _ in range(halvings):  # the last region whose first chunk is not beyond this one
            middle = (region + last) // 2
            there = tl.load(ptr + middle) // chunk + middle <= t
            region, last = tl.where(there, middle, region), tl.where(there, last, middle)
        low, high = _region(ptr, region, size, points)
        begin = low + (t - _first_chunk(low, region, None, chunk)) * chunk
    return region, begin, tl.minimum(begin + chunk, high)


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


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_assign(
    fv, ptr, center, closed, alpha, beta, index, similarity, parts, masses,
    regions, points, size, heads, channels, chunk, halvings,
    M: tl.constexpr, SHARED: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Assign, and a chunk's share of what is to be aggregated: [G, H, M, c] and [G, H, M]."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, end = _chunk(ptr, t, regions, size, points, chunk, halvings)
    dtype: tl.constexpr = fv.dtype.element_ty
    m, c, width = tl.arange(0, BM), tl.arange(0, BC), heads * channels
    within = (m < M)[:, None] & (c < channels)[None, :]
    at = (region * M + m)[:, None] * (2 * width) + head * channels + c[None, :]
    middle = tl.load(center + at, within, 0.0).to(dtype)
    open_ = m < M
    if closed is not None:
        row = m if SHARED else region * M + m
        open_ = open_ & (tl.load(closed + row, m < M, 1).to(tl.int32) == 0)
    a, b = tl.load(alpha).to(tl.float32), tl.load(beta).to(tl.float32)
    spoiled = tl.sum(tl.sum(middle.to(tl.float32) * 0.0, 1), 0)  # no number if a centre has none
    total, mass = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    for step in range(tl.cdiv((end - begin).to(tl.int32), BP)):
        p = begin + step * BP + tl.arange(0, BP)
        real = p < end
        mask = real[:, None] & (c < channels)[None, :]
        at = p[:, None] * (2 * width) + head * channels + c[None, :]
        f = tl.load(fv + at, mask, 0.0)
        v = tl.load(fv + at + width, mask, 0.0)
        _, _, _, score = _assign(f, middle, real[:, None], open_, a, b, PRECISION)
        best, chosen = tl.max(score, 1), tl.argmax(score, 1)
        chosen = tl.minimum(chosen, M - 1)
        s = tl.sigmoid(best) + spoiled
        tl.store(index + p * heads + head, chosen.to(tl.int64), real)
        tl.store(similarity + p * heads + head, s, real)
        hot = (m[None, :] == chosen[:, None]) & real[:, None]
        meets = tl.where(hot, s[:, None], 0.0).to(dtype)
        total += _dot(tl.trans(meets), v, PRECISION)
        mass += tl.sum(meets.to(tl.float32), 0)
    slot = (t * heads + head) * M + m
    tl.store(parts + slot[:, None] * channels + c[None, :], total, within)
    tl.store(masses + slot, mass, m < M)


@triton.jit(do_not_specialize=["regions", "points"])
def add_chunks(
    fv, parts, masses, ptr, center, h, mass, to_mass, alpha, out,
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
    number = tl.cdiv((high - low), chunk).to(tl.int32)
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
        f = tl.load(middle, real, 0.0).to(fv.dtype.element_ty).to(tl.float32)
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
    region, begin, end = _chunk(ptr, t, regions, size, points, chunk, halvings)
    c, width = tl.arange(0, BC), heads * channels
    for step in range(tl.cdiv((end - begin).to(tl.int32), BP)):
        p = begin + step * BP + tl.arange(0, BP)
        real = p < end
        mask = real[:, None] & (c < channels)[None, :]
        s = tl.load(similarity + p * heads + head, real, 0.0).to(y.dtype.element_ty)
        slot = (region * heads + head) * M + tl.load(index + p * heads + head, real, 0)
        value = tl.load(h + slot[:, None] * channels + c[None, :], mask, 0.0)
        out = s.to(tl.float32)[:, None] * value
        at = p[:, None] * width + head * channels + c[None, :]
        tl.store(y + at, out.to(y.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_gather(
    ptr, index, similarity, value, parts, masses,
    regions, points, size, heads, channels, chunk, halvings, stride,
    M: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A chunk's share of the sums of s and of s times a value, whose rows are `stride` apart."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, end = _chunk(ptr, t, regions, size, points, chunk, halvings)
    dtype: tl.constexpr = value.dtype.element_ty
    m, c = tl.arange(0, BM), tl.arange(0, BC)
    total, mass = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    for step in range(tl.cdiv((end - begin).to(tl.int32), BP)):
        p = begin + step * BP + tl.arange(0, BP)
        real = p < end
        mask = real[:, None] & (c < channels)[None, :]
        x = tl.load(value + p[:, None] * stride + head * channels + c[None, :], mask, 0.0)
        s = tl.load(similarity + p * heads + head, real, 0.0)
        chosen = tl.load(index + p * heads + head, real, 0).to(tl.int32)
        hot = (m[None, :] == chosen[:, None]) & real[:, None]
        meets = tl.where(hot, s[:, None], 0.0).to(dtype)
        total += _dot(tl.trans(meets), x, PRECISION)
        mass += tl.sum(meets.to(tl.float32), 0)
    slot = (t * heads + head) * M + m
    within = (m < M)[:, None] & (c < channels)[None, :]
    tl.store(parts + slot[:, None] * channels + c[None, :], total, within)
    tl.store(masses + slot, mass, m < M)


@triton.jit(do_not_specialize=["regions", "points", "halvings"])
def chunk_backward(
    fv, ptr, center, h, to_sum, to_mass, alpha, index, similarity, grad,
    to_fv, to_numbers, y, parts, masses,
    regions, points, size, heads, channels, chunk, halvings,
    M: tl.constexpr, BM: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients for f and v but for those through the means, for alpha and beta, and a chunk's
    share of those for the centres; and y once more."""
    head = tl.program_id(0) % heads
    t = (tl.program_id(0) // heads).to(tl.int64)
    region, begin, end = _chunk(ptr, t, regions, size, points, chunk, halvings)
    dtype: tl.constexpr = fv.dtype.element_ty
    m, c, width = tl.arange(0, BM), tl.arange(0, BC), heads * channels
    within = (m < M)[:, None] & (c < channels)[None, :]
    at = (region * M + m)[:, None] * (2 * width) + head * channels + c[None, :]
    middle = tl.load(center + at, within, 0.0).to(dtype)
    slot = (region * heads + head) * M + m
    at = slot[:, None] * channels + c[None, :]
    cluster = tl.load(h + at, within, 0.0).to(dtype)
    through = tl.load(to_sum + at, within, 0.0).to(dtype)
    beside = tl.load(to_mass + slot, m < M, 0.0)
    a = tl.load(alpha).to(tl.float32)
    total, turned = tl.zeros([BM, BC], tl.float32), tl.zeros([BM], tl.float32)
    to_beta = tl.zeros([BM], tl.float32)
    for step in range(tl.cdiv((end - begin).to(tl.int32), BP)):
        p = begin + step * BP + tl.arange(0, BP)
        real = p < end
        mask = real[:, None] & (c < channels)[None, :]
        at = p[:, None] * (2 * width) + head * channels + c[None, :]
        at_y = p[:, None] * width + head * channels + c[None, :]
        f = tl.load(fv + at, mask, 0.0)
        v = tl.load(fv + at + width, mask, 0.0)
        d = tl.load(grad + at_y, mask, 0.0)
        s = tl.load(similarity + p * heads + head, real, 0.0)
        chosen = tl.load(index + p * heads + head, real, 0).to(tl.int32)
        hot = (m[None, :] == chosen[:, None]) & real[:, None]
        meets = tl.where(hot, s[:, None], 0.0).to(dtype)
        length, reach, cos, _ = _assign(f, middle, real[:, None], m < M, a, 0.0, PRECISION)
        to_s = _dot(d, tl.trans(cluster), PRECISION) + _dot(v, tl.trans(through), PRECISION)
        to_s += beside[None, :]
        to_score = tl.where(hot, to_s * (s * (1 - s))[:, None], 0.0)
        turn = tl.where(hot, to_score * cos, 0.0)
        q = (a * to_score / (length[:, None] * reach[None, :])).to(dtype)
        pull = tl.where(length > LEAST, a * tl.sum(turn, 1) / (length * length), 0.0)
        to_f = _dot(q, middle, PRECISION) - pull[:, None] * f.to(tl.float32)
        tl.store(to_fv + at, to_f.to(dtype), mask)
        tl.store(to_fv + at + width, _dot(meets, through, PRECISION).to(dtype), mask)
        tl.store(y + at_y, _dot(meets, cluster, PRECISION).to(dtype), mask)
        total += _dot(tl.trans(q), f, PRECISION)
        turned += tl.sum(turn, 0)
        to_beta += tl.sum(to_score, 0)
    slot = (t * heads + head) * M + m
    tl.store(parts + slot[:, None] * channels + c[None, :], total, within)
    tl.store(masses + slot, turned, m < M)
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
