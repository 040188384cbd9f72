"""The context cluster on the CPU: some regions at a time, all four steps in a core's own cache.

A thread takes blocks of regions, by a counter that all share, until none is left. The linear maps
are moved to the centres, as `dense.py` explains. A slot is a centre and a head, centre by centre.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pointcluster.ops.launch import Kernel, Table
from pointcluster.ops.loops import (
    EXACT,
    ONE,
    SUMS,
    ZERO,
    N,
    T,
    add_rows,
    add_times,
    carray,
    count_up,
    dot,
    exp,
    inlined,
    product,
    start_rows,
)  # fmt: skip

# rows: of group, count and closed, R of them, or (shared) one for all regions. block: regions at a
# time; most: points of the largest block; wide: the most channels that are added up.
SIZES = (
    "regions points channels out width heads centers near rows shared block most slots bounds wide"
)
ARRAYS = {
    "x": "float32 points channels",
    "fv": "float32 2*width channels",
    "fv_bias": "float32 2*width",
    "proj": "float32 out width",
    "proj_bias": "float32 out",
    "alpha": "float32 1",
    "beta": "float32 1",
    "ptr": "int64 bounds",
    "group": "int64 rows centers near",
    "count": "int64 rows centers",
    "index": "int64 points heads",
    "similarity": "float32 points heads",
    "wrong": "int64 1",
}
OF_CENTERS = {
    "mean": "float32 block*centers channels",
    "center": "float32 block*centers 2*width",
    "mass": "float32 block*centers heads",
    "h": "float32 block*centers width",
    "f": "float32 most width",
    "meets": "float32 most slots",
}
FORWARD = Table(
    SIZES,
    {**ARRAYS, "closed": "float32 rows centers", "residual": "?float32 points out",
     "y": "float32 points out"},
    {**OF_CENTERS,
     "shift": "float32 block*centers heads",
     "lifted": "float32 block*centers heads channels",
     "sent": "float32 block*centers heads out"},
)  # fmt: skip
BACKWARD = Table(
    f"{SIZES} parts",
    {**ARRAYS, "grad": "float32 points out", "to_x": "float32 points channels",
     "to_fv": "float32 parts 2*width channels", "to_fv_bias": "float32 parts 2*width",
     "to_proj": "float32 parts out width", "to_proj_bias": "float32 parts out",
     "to_numbers": "float32 parts 2"},
    {**OF_CENTERS,
     "to_mean": "float32 block*centers channels",
     "to_center": "float32 block*centers 2*width",
     "length": "float32 block*centers heads",
     "to_mass": "float32 block*centers heads",
     "to_h": "float32 block*centers width",
     "total": "float32 block*centers heads channels",
     "to_total": "float32 block*centers heads channels",
     "sent": "float32 block*centers heads out",
     "to_sent": "float32 block*centers heads out",
     "sums": "float32 wide"},
)  # fmt: skip
open_forward, open_backward = FORWARD.opened, BACKWARD.opened
EPS = np.float32(1e-8)


# propose ------------------------------------------------------------------------------------------


@inlined(EXACT)
def propose(
    x: np.ndarray, group: np.ndarray, count: np.ndarray, mean: np.ndarray, wrong: np.ndarray
) -> None:
    """The means of a region's groupings."""
    channels = mean.shape[1]
    for m in range(len(mean)):
        k = count[m]
        for j in range(k):
            if group[m, j] < 0 or group[m, j] >= len(x):  # memory beyond would be read
                wrong[0] = 1
                return
        mean[m] = ZERO
        for j in range(0, k - 3, 4):  # four at a time: the mean is read and written less often
            a, b, c, d = group[m, j], group[m, j + 1], group[m, j + 2], group[m, j + 3]
            for i in range(channels):
                mean[m, i] += (x[a, i] + x[b, i]) + (x[c, i] + x[d, i])
        for j in range(k // 4 * 4, k):
            a = group[m, j]
            for i in range(channels):
                mean[m, i] += x[a, i]
        scale = ONE / np.float32(k)
        for i in range(channels):
            mean[m, i] *= scale


@inlined(EXACT)
def propose_backward(
    to_mean: np.ndarray, group: np.ndarray, count: np.ndarray, to_x: np.ndarray
) -> None:
    """From the gradients of means to those of points, added up."""
    for m in range(len(to_mean)):
        scale = ONE / np.float32(count[m])
        for j in range(count[m]):
            add_times(scale, to_mean[m], to_x[group[m, j]])


@inlined(EXACT)
def normalise(center: np.ndarray, heads: int, bias: np.ndarray, length: np.ndarray) -> None:
    """Add the bias to the centres' f and v, and bring f to length 1 from what it is."""
    size = center.shape[1] // 2 // heads
    for r in range(len(center)):
        row = center[r]
        for i in range(len(row)):
            row[i] += bias[i]
        for head in range(heads):
            part = row[head * size : (head + 1) * size]
            length[r, head] = np.sqrt(dot(part, part))
            scale = ONE / max(length[r, head], EPS)
            for i in range(size):
                part[i] *= scale


@inlined(EXACT)
def normalise_backward(center: np.ndarray, length: np.ndarray, to_center: np.ndarray) -> None:
    """From the gradient of centres of length 1 to that of the centres."""
    heads = length.shape[1]
    size = center.shape[1] // 2 // heads
    for r in range(len(center)):
        for head in range(heads):
            part = center[r, head * size : (head + 1) * size]
            to = to_center[r, head * size : (head + 1) * size]
            along = dot(part, to) if length[r, head] > EPS else ZERO
            inverse = ONE / max(length[r, head], EPS)
            for i in range(size):
                to[i] = inverse * (to[i] - along * part[i])


# assign -------------------------------------------------------------------------------------------


@inlined(SUMS)
def square(row: np.ndarray, bias: np.ndarray) -> Any:
    """The square of the length of `row + bias`."""
    total = ZERO
    for i in range(len(row)):
        value = row[i] + bias[i]
        total += value * value
    return total


@inlined(EXACT)
def assign(
    f: np.ndarray, bias: np.ndarray, cos: np.ndarray, shift: np.ndarray, closed: np.ndarray,
    alpha: float, beta: float, score: np.ndarray, index: np.ndarray,
) -> None:  # fmt: skip
    """The best centre of each point and head, and its score before the sigmoid."""
    centers, heads = shift.shape
    size = f.shape[1] // heads
    for n in range(len(f)):
        for head in range(heads):
            at, end = head * size, (head + 1) * size
            scale = alpha / max(np.sqrt(square(f[n, at:end], bias[at:end])), EPS)
            best, which = np.float32(-np.inf), 0
            for m in range(centers):
                value = scale * (cos[n, m * heads + head] + shift[m, head]) + closed[m]
                higher = (value > best) | (value != value)
                best, which = value if higher else best, m if higher else which
            score[n, head], index[n, head] = beta + best, which


@inlined(EXACT)
def sigmoid(x: np.ndarray) -> None:
    """In place."""
    for i in range(len(x)):
        x[i] = ONE / (ONE + exp(-x[i]))


@inlined(EXACT)
def assign_backward(
    x: np.ndarray, grad: np.ndarray, f: np.ndarray, bias: np.ndarray, center: np.ndarray,
    sent: np.ndarray, to_total: np.ndarray, to_mass: np.ndarray, score: np.ndarray,
    index: np.ndarray, alpha: float, to_center: np.ndarray, to_numbers: np.ndarray,
) -> None:  # fmt: skip
    """From the gradients of the output and the sums to those of f, in its place, and centres."""
    heads = score.shape[1]
    size = f.shape[1] // heads
    to_alpha, to_beta = ZERO, ZERO
    for n in range(len(x)):
        for head in range(heads):
            m = index[n, head]
            at, end = head * size, (head + 1) * size
            s = score[n, head]
            to_s = dot(grad[n], sent[m, head]) + dot(x[n], to_total[m, head]) + to_mass[m, head]
            to_score = to_s * s * (ONE - s)
            part, middle, to_middle = f[n, at:end], center[m, at:end], to_center[m, at:end]
            for i in range(size):
                part[i] += bias[at + i]
            length = np.sqrt(dot(part, part))
            inverse = ONE / max(length, EPS)
            cos = dot(part, middle) * inverse
            to_alpha += to_score * cos
            to_beta += to_score
            slope = alpha * to_score * inverse
            along = cos * inverse if length > EPS else ZERO
            for i in range(size):
                value = part[i]
                to_middle[i] += slope * value
                part[i] = slope * (middle[i] - along * value)
    to_numbers[0] += to_alpha
    to_numbers[1] += to_beta


# aggregate ----------------------------------------------------------------------------------------


@inlined(EXACT)
def meet(score: np.ndarray, index: np.ndarray, meets: np.ndarray, mass: np.ndarray) -> None:
    """The similarity where a point meets its centre, zeros elsewhere; and its sums."""
    heads = score.shape[1]
    meets[:] = ZERO
    mass[:] = ZERO
    for n in range(len(score)):
        for head in range(heads):
            m = index[n, head]
            meets[n, m * heads + head] = score[n, head]
            mass[m, head] += score[n, head]


@inlined(EXACT)
def aggregate(center: np.ndarray, mass: np.ndarray, bias: np.ndarray, h: np.ndarray) -> None:
    """From sums over points to means over points and their centre."""
    heads, width = mass.shape[1], h.shape[1]
    size = width // heads
    for r in range(len(h)):
        for head in range(heads):
            weight = mass[r, head]
            for i in range(head * size, (head + 1) * size):
                total = center[r, width + i] + h[r, i] + weight * bias[width + i]
                h[r, i] = total / (ONE + weight)


@inlined(EXACT)
def aggregate_backward(
    h: np.ndarray, to_h: np.ndarray, mass: np.ndarray, bias: np.ndarray, to_center: np.ndarray,
    to_bias: np.ndarray, to_mass: np.ndarray,
) -> None:  # fmt: skip
    """From the gradient of `h` to that of its sums, `to_h`, of g and of v's bias."""
    width, heads = h.shape[1], mass.shape[1]
    size = width // heads
    for r in range(len(h)):
        for head in range(heads):
            at, end = head * size, (head + 1) * size
            weight = mass[r, head]
            part = to_h[r, at:end]
            inverse = ONE / (ONE + weight)
            for i in range(size):
                part[i] *= inverse
            to_mass[r, head] = dot(part, bias[width + at : width + end]) - dot(part, h[r, at:end])
            for i in range(size):
                to_center[r, width + at + i] = part[i]
                to_bias[width + at + i] += weight * part[i]


# All four -----------------------------------------------------------------------------------------


def forward_kernel(pointer: Any) -> None:
    """Some regions at a time: y, index, similarity."""
    a = carray(pointer, (1,))[0]
    v = open_forward(a)
    gemm, heads, width, centers = a.gemm, a.heads, a.width, a.centers
    size, alpha, beta = width // heads, v.alpha[0], v.beta[0]
    while True:
        first = count_up(a.counter) * a.block
        if first >= a.regions:
            break
        last = min(first + a.block, a.regions)
        begin, end, rows = v.ptr[first], v.ptr[last], (last - first) * centers
        x, index, score = v.x[begin:end], v.index[begin:end], v.similarity[begin:end]
        # propose
        for r in range(last - first):
            row = 0 if a.shared else first + r
            here = v.x[v.ptr[first + r] : v.ptr[first + r + 1]]
            mean = v.mean[r * centers : (r + 1) * centers]
            propose(here, v.group[row], v.count[row], mean, v.wrong)
        center = v.center[:rows]
        product(gemm, v.mean[:rows], N, v.fv, T, 0.0, center)
        normalise(center, heads, v.fv_bias, v.shift)
        for head in range(heads):
            at, stop = head * size, (head + 1) * size
            for r in range(rows):
                v.shift[r, head] = dot(center[r, at:stop], v.fv_bias[at:stop])
            product(gemm, center[:, at:stop], N, v.fv[at:stop], N, 0.0, v.lifted[:rows, head])
        # assign
        product(gemm, x, N, v.fv[:width], T, 0.0, v.f[: end - begin])
        for r in range(last - first):
            at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
            low, high = r * centers, (r + 1) * centers
            lifted = v.lifted[low:high].reshape(a.slots, a.channels)
            product(gemm, x[at:stop], N, lifted, T, 0.0, v.meets[at:stop])
            row = 0 if a.shared else first + r
            assign(v.f[at:stop], v.fv_bias, v.meets[at:stop], v.shift[low:high], v.closed[row],
                   alpha, beta, score[at:stop], index[at:stop])  # fmt: skip
        sigmoid(score.reshape(score.size))
        # aggregate
        for r in range(last - first):
            at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
            low, high = r * centers, (r + 1) * centers
            meet(score[at:stop], index[at:stop], v.meets[at:stop], v.mass[low:high])
            total = v.lifted[low:high].reshape(a.slots, a.channels)
            product(gemm, v.meets[at:stop], T, x[at:stop], N, 0.0, total)
        for head in range(heads):
            at, stop = head * size, (head + 1) * size
            product(gemm, v.lifted[:rows, head], N, v.fv[width + at : width + stop], T, 0.0,
                    v.h[:rows, at:stop])  # fmt: skip
        aggregate(center, v.mass, v.fv_bias, v.h[:rows])
        # dispatch
        for head in range(heads):
            at, stop = head * size, (head + 1) * size
            product(gemm, v.h[:rows, at:stop], N, v.proj[:, at:stop], T, 0.0, v.sent[:rows, head])
        y = v.y[begin:end]
        start_rows(y, v.residual[begin:end], v.proj_bias)
        for r in range(last - first):
            at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
            sent = v.sent[r * centers : (r + 1) * centers].reshape(a.slots, a.out)
            product(gemm, v.meets[at:stop], N, sent, N, 1.0, y[at:stop])


def backward_kernel(pointer: Any) -> None:
    """The gradients, given index and similarity.

    Those of weights are added up part by part, each part by one thread and in the regions' order,
    whichever thread that is.
    """
    a = carray(pointer, (1,))[0]
    v = open_backward(a)
    gemm, heads, width, centers = a.gemm, a.heads, a.width, a.centers
    size, alpha = width // heads, v.alpha[0]
    blocks = (a.regions + a.block - 1) // a.block
    while True:
        part = count_up(a.counter)
        if part >= a.parts:
            break
        to_fv, to_proj, to_fv_bias = v.to_fv[part], v.to_proj[part], v.to_fv_bias[part]
        to_fv_bias[:], v.to_proj_bias[part], v.to_numbers[part] = ZERO, ZERO, ZERO
        fresh = 0.0
        for block in range(blocks * part // a.parts, blocks * (part + 1) // a.parts):
            first = block * a.block
            last = min(first + a.block, a.regions)
            begin, end, rows = v.ptr[first], v.ptr[last], (last - first) * centers
            x, grad, to_x = v.x[begin:end], v.grad[begin:end], v.to_x[begin:end]
            index, score = v.index[begin:end], v.similarity[begin:end]
            center, h, to_h = v.center[:rows], v.h[:rows], v.to_h[:rows]
            to_center = v.to_center[:rows]
            # propose, once more
            for r in range(last - first):
                row = 0 if a.shared else first + r
                here = v.x[v.ptr[first + r] : v.ptr[first + r + 1]]
                mean = v.mean[r * centers : (r + 1) * centers]
                propose(here, v.group[row], v.count[row], mean, v.wrong)
            product(gemm, v.mean[:rows], N, v.fv, T, 0.0, center)
            normalise(center, heads, v.fv_bias, v.length)
            # aggregate, and dispatch backwards
            for r in range(last - first):
                at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
                low, high = r * centers, (r + 1) * centers
                meets = v.meets[at:stop]
                meet(score[at:stop], index[at:stop], meets, v.mass[low:high])
                product(gemm, meets, T, x[at:stop], N, 0.0,
                        v.total[low:high].reshape(a.slots, a.channels))  # fmt: skip
                product(gemm, meets, T, grad[at:stop], N, 0.0,
                        v.to_sent[low:high].reshape(a.slots, a.out))  # fmt: skip
            for head in range(heads):
                at, stop = head * size, (head + 1) * size
                product(gemm, v.total[:rows, head], N, v.fv[width + at : width + stop], T, 0.0,
                        h[:, at:stop])  # fmt: skip
            aggregate(center, v.mass, v.fv_bias, h)
            for head in range(heads):
                at, stop = head * size, (head + 1) * size
                proj = v.proj[:, at:stop]
                product(gemm, h[:, at:stop], N, proj, T, 0.0, v.sent[:rows, head])
                product(gemm, v.to_sent[:rows, head], N, proj, N, 0.0, to_h[:, at:stop])
                product(gemm, v.to_sent[:rows, head], T, h[:, at:stop], N, fresh,
                        to_proj[:, at:stop])  # fmt: skip
            to_center[:] = ZERO
            aggregate_backward(h, to_h, v.mass, v.fv_bias, to_center, to_fv_bias, v.to_mass)
            for head in range(heads):
                at, stop = head * size, (head + 1) * size
                product(gemm, to_h[:, at:stop], N, v.fv[width + at : width + stop], N, 0.0,
                        v.to_total[:rows, head])  # fmt: skip
            # assign backwards: f in turn
            product(gemm, x, N, v.fv[:width], T, 0.0, v.f[: end - begin])
            for r in range(last - first):
                at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
                low, high = r * centers, (r + 1) * centers
                f = v.f[at:stop]
                assign_backward(
                    x[at:stop], grad[at:stop], f, v.fv_bias, center[low:high], v.sent[low:high],
                    v.to_total[low:high], v.to_mass[low:high], score[at:stop], index[at:stop],
                    alpha, to_center[low:high], v.to_numbers[part],
                )  # fmt: skip
                add_rows(f, v.sums, to_fv_bias[:width])
                add_rows(grad[at:stop], v.sums, v.to_proj_bias[part])
            normalise_backward(center, v.length, to_center)
            add_rows(to_center, v.sums, to_fv_bias)
            # to the weights: of centres, all of them; then of f, and of v by its sums
            product(gemm, to_center, T, v.mean[:rows], N, fresh, to_fv)
            product(gemm, v.f[: end - begin], T, x, N, 1.0, to_fv[:width])
            for head in range(heads):
                at, stop = head * size, (head + 1) * size
                product(gemm, to_h[:, at:stop], T, v.total[:rows, head], N, 1.0,
                        to_fv[width + at : width + stop])  # fmt: skip
            # to the points: through f, the sums, and the means
            product(gemm, v.f[: end - begin], N, v.fv[:width], N, 0.0, to_x)
            product(gemm, to_center, N, v.fv, N, 0.0, v.to_mean[:rows])
            for r in range(last - first):
                at, stop = v.ptr[first + r] - begin, v.ptr[first + r + 1] - begin
                low, high = r * centers, (r + 1) * centers
                to_total = v.to_total[low:high].reshape(a.slots, a.channels)
                product(gemm, v.meets[at:stop], N, to_total, N, 1.0, to_x[at:stop])
                row = 0 if a.shared else first + r
                propose_backward(v.to_mean[low:high], v.group[row], v.count[row], to_x[at:stop])
            fresh = 1.0


forward, backward = Kernel(FORWARD, forward_kernel), Kernel(BACKWARD, backward_kernel)
