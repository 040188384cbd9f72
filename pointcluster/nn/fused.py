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
    if not available("numba") or platform.system() != "Linux" or not torch.backends.mkl.is_available():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        team, gemm = library.GOMP_parallel, library.sgemm_
    except (OSError, AttributeError):
        return None
    team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    address = ctypes.cast(gemm, ctypes.c_void_p).value
    return None if address is None else _Torch(team, address)


def serves(*tensors: Tensor) -> bool:
    """Whether fused layers take these tensors, now: plain float32 ones on a CPU.

    Whoever watches or rewrites torch's operations (compilers, exports, counters, function
    transforms) is to see them.
    """
    return (
        all(
            type(each) in (Tensor, torch.nn.Parameter)
            and each.dtype == torch.float32
            and each.device.type == "cpu"
            and each.is_contiguous()
            and each.numel() > 0
            for each in tensors
        )
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and _torch() is not None
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


def cluster(
    x: Tensor,
    fv: tuple[Tensor, Tensor],
    proj: tuple[Tensor, Tensor],
    score: tuple[Tensor, Tensor],
    pool: Tensor,
    count: Tensor | None,
    repeats: Tensor | None,
    heads: int,
    onto: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`~pointcluster.nn.lifted.lifted_cluster` gives, without gradients."""
    from pointcluster.nn.fused_loops import cluster as kernel

    threads = torch.get_num_threads()
    (regions, points, channels), centers = x.shape, pool.size(1)
    width, out = proj[0].size(1), proj[0].size(0)
    slots = centers * heads
    # Few enough that every thread gets some.
    group = max(1, min(2 * ROWS // points, regions // (2 * threads)))
    rooms = (
        2 * points * heads, points * heads, points * width, points * slots, centers * channels,
        2 * centers * width, slots, slots, centers * width, slots * max(channels, out),
    )  # fmt: skip
    size = sum(-(-group * room // 16) * 16 for room in rooms)
    scratch = x.new_empty(threads, size)
    y = x.new_empty(regions, points, out)
    index = torch.empty(regions, points, heads, dtype=torch.long)
    similarity = x.new_empty(regions, points, heads)
    numbers = torch.cat([*score, score[0].new_tensor([eps])])
    pool = pool.to(x.dtype).contiguous()
    count = None if count is None else count.to(x.dtype).contiguous()
    repeats = None if repeats is None else repeats.to(x.dtype).contiguous()
    steps = [0 if each is None or len(each) == 1 else each[0].numel() for each in (pool, repeats)]
    _run(
        kernel, threads, scratch.data_ptr(), 4 * size, regions, points, channels, out, width,
        heads, centers, group, *map(_address, (x, *fv, *proj, numbers)), _address(pool), steps[0],
        _address(count), _address(repeats), steps[1],
        *map(_address, (onto, y, index, similarity)),
    )  # fmt: skip
    return y, index, similarity
