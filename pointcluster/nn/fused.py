"""Who works out several layers at once, in the threads and with the products that torch brings."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointcluster.geometry.backend import available

ROWS = 128
"""Rows at a time: with their hidden features they stay in a core's own cache."""
GATHERED = 1 << 15
"""Numbers that anchors gather at a time."""
CHANNELS = 16
"""Channels whose gradients a thread adds up at a time: a line of a cache."""
PARTS = 2
"""Parts a thread that gradients of weights are added up in."""


class _Torch(NamedTuple):
    """What torch's libraries hold, and Python does not show."""

    team: Callable[..., None]
    """Calls a function in all threads of a team."""
    gemm: int
    """Address of BLAS's product of float32 matrices."""


@cache
def _torch() -> _Torch | None:
    """OpenMP's team and MKL's product, where torch comes with both and Numba is there."""
    if (
        not available("numba")
        or platform.system() != "Linux"
        or not torch.backends.mkl.is_available()
    ):
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        team, gemm = library.GOMP_parallel, library.sgemm_
        watched()
    except (OSError, AttributeError):
        return None
    team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    address = ctypes.cast(gemm, ctypes.c_void_p).value
    return _Torch(team, address) if address is not None and multiplies(gemm) else None


def multiplies(gemm: Any) -> bool:
    """Whether a function is the product that the kernels take it for: asked once, of one product.

    Args:
        gemm: `sgemm` of some BLAS, with Fortran's convention.
    """
    a = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    b, c = torch.tensor([[1.0, 0.5], [-2.0, 4.0], [0.25, 8.0]]), torch.full((2, 2), 7.0)
    expected = a @ b + 2 * c
    # Row by row, as C has it, is column by column of the transposed matrices.
    sizes = [ctypes.c_int64(value) for value in (2, 2, 3)]
    one, two = ctypes.c_float(1), ctypes.c_float(2)
    strides = [ctypes.c_int64(value) for value in (2, 3, 2)]
    flags = ctypes.create_string_buffer(b"N"), ctypes.create_string_buffer(b"N")
    pointers = [ctypes.c_void_p(each.data_ptr()) for each in (b, a, c)]
    place: Any = ctypes.byref
    gemm.restype = None
    gemm(
        *flags, *map(place, (*sizes, one)), pointers[0], place(strides[0]),
        pointers[1], place(strides[1]), place(two), pointers[2],
        place(strides[2]),
    )  # fmt: skip
    return torch.equal(c, expected)


def watched() -> bool:
    """Whether something watches or rewrites torch's operations, which must see them then."""
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def serves(*tensors: Tensor) -> bool:
    """Whether fused layers take these tensors, now: plain float32 ones on a CPU.

    Whoever watches or rewrites torch's operations (compilers, exports, counters, function
    transforms) is to see them.
    """
    return (
        not torch.compiler.is_compiling()  # first: compilers do not follow what comes next
        and _torch() is not None
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and not watched()
        and all(
            type(each) in (Tensor, torch.nn.Parameter)
            and each.dtype == torch.float32
            and each.device.type == "cpu"
            and each.layout == torch.strided
            and each.is_contiguous()
            and each.numel() > 0
            for each in tensors
        )
    )


def _run(kernel: Any, threads: int, *arguments: int) -> None:
    """Call a kernel in a team: its products, two counters at 0, and what it is given."""
    torchs = _torch()
    assert torchs is not None
    data = (ctypes.c_int64 * (len(arguments) + 5))()
    start = ctypes.addressof(data)
    counters = start + 8 * (len(arguments) + 3)
    data[:-2] = [torchs.gemm, counters, counters + 8, *arguments]
    torchs.team(kernel.address, start, threads, 0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(count: int, threads: int) -> int:
    """Rows at a time, so that threads get equally many."""
    parts = -(-count // ROWS)
    parts = -(-parts // threads) * threads
    return max(8, -(-count // (8 * parts)) * 8) if parts else 8


def mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, onto: Tensor | None) -> Tensor:
    r"""$r + W_2 \operatorname{gelu}(W_1 x + b_1) + b_2$ without hidden features in memory.

    Shapes:
        - **x:** $(N, C)$, **w1:** $(H, C)$, **w2:** $(C', H)$, **onto** ($r$): $(N, C')$
        - **output:** $(N, C')$
    """
    from pointcluster.nn.fused_loops import mlp as kernel

    threads = torch.get_num_threads()
    (count, channels), (out, hidden) = x.shape, w2.shape
    step = _rows(count, threads)
    y, scratch = x.new_empty(count, out), x.new_empty(threads, step, hidden)
    _run(
        kernel, threads, scratch.data_ptr(), count, channels, hidden, out, step,
        *map(_address, (x, w1, b1, w2, b2, onto, y)),
    )  # fmt: skip
    return y


def mlp_backward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of :func:`mlp` for `x`, `w1`, `b1` and `w2`.

    Shapes:
        - **grad:** $(N, C')$, the others as there
        - **output:** as `x`, `w1`, `b1` and `w2`
    """
    from pointcluster.nn.fused_loops import mlp_backward as kernel

    threads = torch.get_num_threads()
    (count, channels), (out, hidden) = x.shape, w2.shape
    step = _rows(count, threads)
    parts = max(1, min(PARTS * threads, -(-count // step)))
    to_x, scratch = torch.empty_like(x), x.new_empty(threads, 2 * step + 1, hidden)
    to_w1, to_w2 = x.new_empty(parts, hidden, channels), x.new_empty(parts, out, hidden)
    to_b1 = x.new_empty(parts, hidden)
    _run(
        kernel, threads, scratch.data_ptr(), count, channels, hidden, out, step, parts,
        *map(_address, (x, w1, b1, w2, grad, to_x, to_w1, to_b1, to_w2)),
    )  # fmt: skip
    return to_x, to_w1.sum(dim=0), to_b1.sum(dim=0), to_w2.sum(dim=0)


class Plan(NamedTuple):
    """A context cluster's regions, and what its layers are."""

    fv: tuple[Tensor, Tensor]
    """Weight and bias of the map to f and v."""
    proj: tuple[Tensor, Tensor]
    """Weight and bias of the last map."""
    numbers: Tensor
    """Scale and shift of the score, and the least length. [3]"""
    pool: Tensor
    """What points count in the centres' groupings. [R or 1, M, P]"""
    divisor: Tensor | None
    """What to divide by to make it a mean. [M]"""
    closed: Tensor
    """0, or minus infinity: the centre takes no point. [R or 1, M]"""
    heads: int


def _sizes(x: Tensor, plan: Plan, threads: int) -> tuple[int, ...]:
    """The numbers that a kernel wants; the last is how many regions go together."""
    regions, points, channels = x.shape
    out, width = plan.proj[0].shape
    # Few enough that every thread gets some.
    group = max(1, min(2 * ROWS // points, regions // (2 * threads)))
    return regions, points, channels, out, width, plan.heads, plan.pool.size(1), group


def _scratch(x: Tensor, threads: int, *rooms: int) -> tuple[Tensor, int]:
    """A place for each thread, and its size in bytes; each part of it begins a line of a cache."""
    size = sum(-(-room // 16) * 16 for room in rooms)
    return x.new_empty(threads, size), 4 * size


def _step(each: Tensor) -> int:
    """Numbers from one region's to the next's; 0: all have the same."""
    return 0 if len(each) == 1 else each[0].numel()


def cluster(x: Tensor, plan: Plan, onto: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`~pointcluster.nn.lifted.lifted_cluster` gives."""
    from pointcluster.nn.fused_loops import cluster as kernel

    threads = torch.get_num_threads()
    sizes = regions, points, channels, out, width, heads, centers, group = _sizes(x, plan, threads)
    slots = centers * heads
    scratch, size = _scratch(
        x, threads, 2 * group * points * heads, group * points * heads, group * points * width,
        group * points * slots, group * centers * channels, group * centers * 2 * width,
        group * slots, group * slots, group * centers * width,
        group * slots * max(channels, out),
    )  # fmt: skip
    y = x.new_empty(regions, points, out)
    index = torch.empty(regions, points, heads, dtype=torch.long)
    similarity = x.new_empty(regions, points, heads)
    _run(
        kernel, threads, scratch.data_ptr(), size, *sizes,
        *map(_address, (x, *plan.fv, *plan.proj, plan.numbers)), _address(plan.pool),
        _step(plan.pool), _address(plan.divisor), _address(plan.closed), _step(plan.closed),
        *map(_address, (onto, y, index, similarity)),
    )  # fmt: skip
    return y, index, similarity


def cluster_backward(
    x: Tensor, plan: Plan, index: Tensor, similarity: Tensor, grad: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of :func:`cluster`: for `x`, both maps' weights and biases, scale and shift."""
    from pointcluster.nn.fused_loops import cluster_backward as kernel

    threads = torch.get_num_threads()
    sizes = regions, points, channels, out, width, heads, centers, group = _sizes(x, plan, threads)
    parts, slots = max(1, min(PARTS * threads, -(-regions // group))), centers * heads
    scratch, size = _scratch(
        x, threads, group * points * width, group * points * slots, group * centers * channels,
        group * centers * channels, group * centers * 2 * width, group * centers * 2 * width,
        group * slots, group * slots, group * slots, group * centers * width,
        group * centers * width, group * slots * channels, group * slots * channels,
        group * slots * out, group * slots * out, max(2 * width, out),
    )  # fmt: skip
    to_x = torch.empty_like(x)
    shapes = (2 * width, channels), (2 * width,), (out, width), (out,), (2,)
    own = [x.new_empty(parts, *shape) for shape in shapes]
    _run(
        kernel, threads, scratch.data_ptr(), size, *sizes,
        *map(_address, (x, *plan.fv, plan.proj[0], plan.numbers)), _address(plan.pool),
        _step(plan.pool), _address(plan.divisor), *map(_address, (index, similarity, grad)), parts,
        *map(_address, (to_x, *own)),
    )  # fmt: skip
    *weights, numbers = (each.sum(dim=0) for each in own)
    return to_x, *weights, numbers[:1], numbers[1:]


def gather_max(
    x: Tensor | None, relative: Tensor | None, weight: Tensor | None, index: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The maximum over each anchor's points $\max_j\, x_{n_j c} + (W r_{aj})_c$, and which it is.

    Shapes:
        - **x:** $(N, C)$, **relative:** $(M, k, h)$, **weight:** $(C, h)$, **index:** $(M, k)$
        - **output:** $(M, C)$ twice

    Raises:
        IndexError: There is no such point.
    """
    from pointcluster.nn.fused_loops import gather_max as kernel

    threads, (anchors, k) = torch.get_num_threads(), index.shape
    points = 0 if x is None else len(x)
    if x is not None and len(index):
        low, high = (int(each) for each in index.aminmax())
        if low < 0 or high >= points:  # memory beyond would be read
            raise IndexError(f"anchors gather points {low} to {high} of {points}")
    channels = x.size(1) if x is not None else len(weight)  # type: ignore[arg-type]
    inner = 0 if weight is None else weight.size(1)
    step = max(1, GATHERED // (k * channels))
    like = index.new_empty(0, dtype=torch.float32)
    y, which = (
        like.new_empty(anchors, channels),
        index.new_empty(anchors, channels, dtype=torch.int32),
    )
    scratch = like.new_empty(threads, step * k + 1, channels)
    _run(
        kernel, threads, scratch.data_ptr(), anchors, k, points, channels, inner, step,
        *map(_address, (x, relative, weight, index, y, which)),
    )  # fmt: skip
    return y, which


def gather_max_backward(
    points: int | None,
    relative: Tensor | None,
    weight: Tensor | None,
    index: Tensor,
    which: Tensor,
    grad: Tensor,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those gradients of :func:`gather_max` for `x`, `relative` and `weight` that are wanted."""
    from pointcluster.nn.fused_loops import gather_max_backward as kernel

    threads, (anchors, k), channels = torch.get_num_threads(), index.shape, grad.size(1)
    inner = 0 if weight is None else weight.size(1)
    wide = max(1, min(CHANNELS, -(-channels // threads)))
    to_x = grad.new_empty(points or 0, channels) if wanted[0] else None
    to_relative = torch.empty_like(relative) if wanted[1] and relative is not None else None
    to_weight = torch.empty_like(weight) if wanted[2] and weight is not None else None
    sums = grad.new_empty(channels, inner)
    _run(
        kernel, threads, sums.data_ptr(), anchors, k, points or 0, channels, inner, ROWS, wide,
        *map(_address, (relative, weight, index, which, grad, to_x, to_relative, to_weight)),
    )  # fmt: skip
    return to_x, to_relative, to_weight
