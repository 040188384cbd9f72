"""Farthest and nearest points on a GPU: from tensors to Triton's kernels. Nothing is waited for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster.ops import launch
from pointcluster.ops.launch import power_of_two
from pointcluster.ops.search import dense
from pointcluster.ops.search.clouds import on_device, pointers, starts_of

IN_REGISTERS = 8192
"""Points of a cloud that one program samples by itself."""
STEP = 2048
"""Points of a larger cloud that a program takes for one pick."""
ALL_PAIRS_UP_TO = 16_384
"""Points of a cloud up to which all of them are looked at for each query."""
TILE, TILE_NUMBERS = 1024, 4096
"""Points, and pairs of queries and points, at a time."""
NEIGHBOURS = 128
"""Most neighbours that kernels are made for."""
QUERIES, REACH = 32, 3
"""Queries of a program that looks into cells, and how many cells it looks to each side at most."""
CELLS_AN_AXIS = 1024
"""So few that rounding moves a point by far less than a hundredth of a cell."""


def fits(pos: Tensor, k: int = 1) -> bool:
    """Whether kernels are made for these points: float32, of one, two or three axes, on a GPU."""
    made_for = pos.dtype == torch.float32 and 1 <= pos.size(1) <= 3 and k <= NEIGHBOURS
    return made_for and launch.gpu_kernels(pos.device)


def fps(
    pos: Tensor, sizes: Sequence[int], nums: Sequence[int], start: Tensor | None = None
) -> Tensor:
    """See :func:`pointcluster.ops.fps`."""
    from pointcluster.ops.search import gpu_kernels as kernels

    pos = pos.contiguous()
    bounds, ptr = starts_of(nums), pointers(sizes, pos.device)
    out = torch.empty(bounds[-1], dtype=torch.int64, device=pos.device)
    asked = [cloud for cloud, num in enumerate(nums) if num]
    large = [cloud for cloud in asked if sizes[cloud] > IN_REGISTERS]
    most = max((sizes[cloud] for cloud in asked if sizes[cloud] <= IN_REGISTERS), default=0)
    if start is None and large:
        start = dense.farthest_from_mean(pos, sizes)
    start = None if start is None else start.contiguous()
    with torch.cuda.device_of(pos):
        if most:
            block = power_of_two(most)
            kernels.farthest[(len(sizes),)](
                pos, ptr, pointers(nums, pos.device), start, out, D=pos.size(1), BP=block,
                num_warps=max(1, min(16, block // 256)), enable_fp_fusion=False,
            )  # fmt: skip
        if large and start is not None:
            found = _fps_large(pos, ptr, sizes, nums, large, start)
            for row, cloud in enumerate(large):
                of_cloud = out[bounds[cloud] : bounds[cloud + 1]]
                torch.add(found[row, : len(of_cloud)], ptr[cloud], out=of_cloud)
    return out


def _fps_large(
    pos: Tensor,
    ptr: Tensor,
    sizes: Sequence[int],
    nums: Sequence[int],
    clouds: list[int],
    start: Tensor,
) -> Tensor:
    """The picks of large clouds, counted inside them, [L, most]: one launch a pick."""
    from pointcluster.ops.search import gpu_kernels as kernels

    asked = [nums[cloud] for cloud in clouds]
    index, counts, most = on_device(clouds, pos.device), on_device(asked, pos.device), max(asked)
    near = torch.full((len(pos),), torch.inf, device=pos.device)
    best = torch.zeros(len(clouds), most, dtype=torch.int64, device=pos.device)
    best[:, 0] = 0xFFFFFFFF - start[index]
    parts = -(-max(sizes[cloud] for cloud in clouds) // STEP)
    step = kernels.farthest_step[(parts * len(clouds),)]
    for i in range(1, most):
        step(
            pos, ptr, index, counts, near, best, i, most, parts, D=pos.size(1), BP=STEP,
            num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip
    return 0xFFFFFFFF - (best & 0xFFFFFFFF)


def knn(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    """See :func:`pointcluster.ops.knn`."""
    pos, query = pos.contiguous(), query.contiguous()
    large = [c for c, n in enumerate(sizes) if n > ALL_PAIRS_UP_TO and query_sizes[c]]
    out = torch.empty(len(query), k, dtype=torch.int64, device=pos.device)
    few = list(query_sizes)
    for cloud in large:
        few[cloud] = 0
    with torch.cuda.device_of(pos):
        if any(few):
            _all_pairs(pos, query, k, sizes, query_sizes, few, out)
        starts, query_starts = starts_of(sizes), starts_of(query_sizes)
        for cloud in large:
            points = pos[starts[cloud] : starts[cloud + 1]]
            rows = slice(query_starts[cloud], query_starts[cloud + 1])
            torch.add(_by_cells(points, query[rows], k), starts[cloud], out=out[rows])
    return out


def _all_pairs(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    asked: Sequence[int],
    out: Tensor,
    todo: Tensor | None = None,
) -> None:
    """Write the neighbours of the clouds' queries that ask, and of these what `todo` tells."""
    from pointcluster.ops.search import gpu_kernels as kernels

    wide = max(n for n, m in zip(sizes, asked, strict=True) if m)
    block = min(TILE, power_of_two(wide))
    rows = min(power_of_two(max(asked)), 64, max(1, TILE_NUMBERS // block))
    blocks = -(-max(asked) // rows)
    few = None
    if list(asked) != list(query_sizes):  # large clouds' queries are none of these
        few = on_device(asked, pos.device)
    kernels.nearest[(blocks * len(sizes),)](
        pos, query, pointers(sizes, pos.device), pointers(query_sizes, pos.device), few, todo,
        out, k, blocks, D=pos.size(1), BQ=rows, BP=block, BK=power_of_two(k),
        num_warps=max(1, min(4, rows * block // 1024)), enable_fp_fusion=False,
    )  # fmt: skip


def _by_cells(pos: Tensor, query: Tensor, k: int) -> Tensor:
    """The neighbours in one large cloud, counted inside it: those in the cells around a query, and
    where there may be nearer ones beyond, of all points."""
    from pointcluster.ops.search import gpu_kernels as kernels

    (n, dim), m = pos.shape, len(query)
    cells = max(1, 2 * n // k)
    # The smallest of some sides for which there are no more cells than that, and few along an axis.
    low, high = pos.amin(dim=0), pos.amax(dim=0)
    steps = torch.arange(41, device=pos.device)
    sides = (high - low).amax().clamp_min(1e-30) / (CELLS_AN_AXIS - 1) ** (steps / 40)
    numbers = ((high - low) / sides[:, None]).floor().long() + 1  # [41, D]
    fits = numbers.double().prod(dim=1) <= cells
    last = (steps * fits).amax()
    side, number = sides[last], numbers[last]

    def cell(x: Tensor) -> Tensor:
        at = ((x - low) / side).floor().clamp(0, CELLS_AN_AXIS).long().minimum(number - 1)
        key = at[:, dim - 1]
        for axis in range(dim - 2, -1, -1):
            key = key * number[axis] + at[:, axis]
        return key

    of_point, order = cell(pos).sort(stable=True)
    starts = torch.searchsorted(of_point, torch.arange(cells + 1, device=pos.device))
    by_cell = cell(query).sort(stable=True).indices
    query = query[by_cell]
    found = torch.empty(m, k, dtype=torch.int64, device=pos.device)
    todo = torch.empty(m, dtype=torch.bool, device=pos.device)
    kernels.nearest_cells[(-(-m // QUERIES),)](
        pos[order], order, starts, query, low, side, number, found, todo, m, k, D=dim, BQ=QUERIES,
        BK=power_of_two(k), REACH=REACH, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    _all_pairs(pos, query, k, [n], [m], [m], found, todo)
    return torch.empty_like(found).index_copy_(0, by_cell, found)
