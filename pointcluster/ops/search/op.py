"""Farthest and nearest points of packed clouds: what they are, and who works them out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pointcluster.ops.backend import available, search_backend
from pointcluster.ops.search import cpu, dense, extensions, gpu, reference, trees
from pointcluster.ops.search.clouds import alike

LOOPS_UP_TO, ARRAYS_UP_TO = (256, 64), (128, 16)
"""Up to this many points a cloud, and as many more for each neighbour looked for, comparing all
pairs beats building a KD-tree on a CPU: in compiled loops (1,024 points, k = 24: 36 ms against 57),
and without them (256 points, k = 24: 8 ms against 15; 512 points, k = 24: 29 against 28)."""
MANY_AXES = 8
"""Above this many axes a KD-tree visits most of its leaves, and comparing all pairs is faster."""


def fps(
    pos: Tensor,
    sizes: Sequence[int],
    nums: Sequence[int],
    start: Tensor | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""Farthest point sampling: each pick is the point farthest from those before.

    $$ a_{j+1} = \arg\max_n \min_{i \le j} d(n, a_i) $$

    with :func:`squared_distance` for $d$. Ties: the lower index. No point is picked twice, so
    coincident points follow, lowest index first, when nothing else is left. From "The Farthest
    Point Strategy for Progressive Image Sampling", Eldar et al., 1997.

    Sizes are numbers that the host knows, so that no device is waited for. There are no gradients.

    Args:
        pos: Positions in float32 or float64, cloud after cloud.
        sizes: Points of each cloud.
        nums: Picks of each cloud, no more than it has points.
        start: The first pick of each cloud, counted inside it; `None`: the point farthest from the
            cloud's mean, of several that are as far but for rounding the first.
        backend: `"auto"`, `"reference"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$, **start:** $(B)$
        - **output:** $(M)$ indices into `pos`, cloud by cloud and in the order they were picked

    Raises:
        TypeError: Positions are of another type.
        ValueError: Sizes and tensors do not fit, or there is no such backend.
        ModuleNotFoundError: The backend asked for is not installed.
    """
    clouds = len(sizes) if start is None else len(start)
    given = pos, clouds, _short(sizes), _short(nums), start
    return torch.ops.pointcluster.fps(*given, backend)


def knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    *,
    backend: str = "auto",
) -> Tensor:
    r"""The `k` nearest points of the same cloud for each query, nearest first.

    Ties: of points at the same :func:`squared_distance`, that of the lower index comes first. A
    cloud with $n < k$ points gives all of them and then repeats them from the start: slot $j$ holds
    neighbour $j \bmod n$.

    Sizes are numbers that the host knows, so that no device is waited for. There are no gradients.

    Args:
        pos: Positions in float32 or float64, cloud after cloud.
        query: Positions of the queries, cloud after cloud.
        k: How many neighbours.
        sizes: Points of each cloud.
        query_sizes: Queries of each cloud; none where it has no points.
        backend: `"auto"`, `"reference"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$, **query:** $(M, D)$
        - **output:** $(M, k)$ indices into `pos`

    Raises:
        TypeError: Positions are of another type.
        ValueError: Sizes and tensors do not fit, or there is no such backend.
        ModuleNotFoundError: The backend asked for is not installed.
    """
    given = pos, query, k, len(sizes), _short(sizes), _short(query_sizes)
    return torch.ops.pointcluster.knn(*given, backend)


def _short(sizes: Sequence[int]) -> list[int]:
    """One number where all clouds have as many: the dispatcher takes its time with long lists."""
    return list(sizes[:1]) if alike(sizes) else list(sizes)


def _long(sizes: list[int], clouds: int) -> list[int]:
    return sizes * clouds if len(sizes) == 1 else sizes


# Who works it out ---------------------------------------------------------------------------------


def _fps(
    pos: Tensor, clouds: int, sizes: list[int], nums: list[int], start: Tensor | None, backend: str
) -> Tensor:
    sizes, nums = _long(sizes, clouds), _long(nums, clouds)
    if not len(sizes) == len(nums) == clouds or sum(sizes) != len(pos):
        raise ValueError(
            f"{len(pos)} points of {clouds} clouds need as many sizes that add up to them, and nums"
            f": found {len(sizes)} that add up to {sum(sizes)}, and {len(nums)}"
        )
    _check_dtypes(pos)
    if any(map(operator.gt, nums, sizes)):
        raise ValueError("nums must not be larger than sizes: a cloud has no more points to pick")
    # Trees find neighbours; for farthest points their name stands for whoever is fastest.
    name = search_backend("auto" if backend == "kdtree" else backend, pos.device)
    pos = pos.detach()
    if name == "reference":
        return reference.fps(pos, sizes, nums, start)
    if name == "triton" and gpu.fits(pos):
        return gpu.fps(pos, sizes, nums, start)
    if start is None:
        start = dense.farthest_from_mean(pos, sizes)
    given = pos, sizes, nums, start
    if name in ("torch-cluster", "pyg-lib"):
        return extensions.fps(*given, name)
    if name == "numba":
        try:
            return _on_host(cpu.fps, *given)
        except OSError:  # Numba keeps what it compiles on a disk, which may be full
            if backend == "numba":
                raise
    return dense.fps(*given)


def _knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    clouds: int,
    sizes: list[int],
    query_sizes: list[int],
    backend: str,
) -> Tensor:
    sizes, query_sizes = _long(sizes, clouds), _long(query_sizes, clouds)
    for name, rows, of in (("pos", len(pos), sizes), ("query", len(query), query_sizes)):
        if len(of) != clouds or sum(of) != rows:
            raise ValueError(
                f"{name} has {rows} rows of {clouds} clouds, found {len(of)} sizes that add "
                f"up to {sum(of)}"
            )
    _check_dtypes(pos, query)
    if any(m and not n for n, m in zip(sizes, query_sizes, strict=True)):
        raise ValueError("a cloud without points must have no queries")
    if len(query) == 0:
        return torch.empty(0, k, dtype=torch.int64, device=pos.device)
    loops = available("numba")
    points, more = LOOPS_UP_TO if loops else ARRAYS_UP_TO
    large = max(sizes) > points + more * k and pos.size(1) <= MANY_AXES
    name = search_backend(backend, pos.device, large=large)
    given = pos.detach(), query.detach(), k, sizes, query_sizes
    if name == "reference":
        return reference.knn(*given)
    if name == "triton" and gpu.fits(pos, k):
        return gpu.knn(*given)
    if name in ("torch-cluster", "pyg-lib"):
        return extensions.knn(*given, name)
    if name == "kdtree":
        if loops and backend != "kdtree":
            try:
                return _on_host(trees.knn, *given, points + more * k)
            except OSError:  # Numba keeps what it compiles on a disk, which may be full
                pass
        return _on_host(trees.knn, *given)
    if name == "numba":
        try:
            return _on_host(cpu.knn, *given)
        except OSError:  # as above
            if backend == "numba":
                raise
    return dense.knn(*given)


def _check_dtypes(*points: Tensor) -> None:
    dtypes = {each.dtype for each in points}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise TypeError(f"positions must be all float32 or all float64, found {dtypes}")


def _on_host(search: Callable[..., Tensor], pos: Tensor, *given: Any) -> Tensor:
    """A search of the CPU, wherever the points are."""
    there = (each.cpu() if isinstance(each, Tensor) else each for each in given)
    return search(pos.cpu(), *there).to(pos.device)


# One op for torch: compilers, exports and fake tensors see it whole -------------------------------

torch.library.define(
    "pointcluster::fps",
    "(Tensor pos, SymInt clouds, SymInt[] sizes, SymInt[] nums, Tensor? start, str backend) -> "
    "Tensor",
)
torch.library.define(
    "pointcluster::knn",
    "(Tensor pos, Tensor query, SymInt k, SymInt clouds, SymInt[] sizes, SymInt[] query_sizes, "
    "str backend) -> Tensor",
)
for _name, _search in (("fps", _fps), ("knn", _knn)):
    torch.library.impl(f"pointcluster::{_name}", "default", _search)
    # Indices have no gradients, so autograd has nothing to do.
    torch.library.impl(f"pointcluster::{_name}", "Autograd", torch.library.fallthrough_kernel)


@torch.library.register_fake("pointcluster::fps")
def _fps_fake(
    pos: Tensor, clouds: int, sizes: list[int], nums: list[int], start: Tensor | None, backend: str
) -> Tensor:
    return pos.new_empty(sum(_long(nums, clouds)), dtype=torch.int64)


@torch.library.register_fake("pointcluster::knn")
def _knn_fake(pos: Tensor, query: Tensor, k: int, *_: Any) -> Tensor:
    return query.new_empty(len(query), k, dtype=torch.int64)
