"""k nearest neighbours on packed point sets of any dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pointcluster.geometry.backend import available, choose
from pointcluster.geometry.check import check_extent, check_positive, cloud_sizes
from pointcluster.geometry.distance import (
    cloud_index,
    geometry_dtype,
    of_like_size,
    padded_rows,
    squared_distance,
    stable_order,
    starts_of,
    take,
)
from pointcluster.geometry.threads import in_parts, in_threads, thread_count, threads_for_searches
from pointcluster.ops.launch import outside_transforms

ALL_PAIRS_UP_TO, AND_A_NEIGHBOUR = 128, 16
"""Up to this many points a cloud, and as many more for each neighbour looked for, comparing all
pairs beats building a tree (CPU)."""
SEARCH_KERNEL_FROM = 193
"""From this many points a cloud on, a compiled kernel beats comparing all pairs (GPU)."""
COMPILED_UP_TO, AND_A_NEIGHBOUR_MORE = 256, 64
"""The same in compiled loops."""
MANY_AXES = 8
"""Above this many axes a KD-tree visits most of its leaves and comparing all pairs is faster."""
KERNEL_NEIGHBOURS = 100
"""How many neighbours the compiled kernels find on a GPU."""
CHUNK, CHUNK_OF_THREAD = 1 << 23, 1 << 18
"""How many distances the all-pairs search holds at a time, in all (GPU) and a thread (CPU): enough
to be worth a call, few enough for a cache."""


@outside_transforms
@threads_for_searches()
def knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Find the `k` nearest points of the same cloud for each query, nearest first.

    Ties: of points at the same :func:`squared_distance`, that of the lower index comes first.
    Every backend keeps this rule. A cloud with $n < k$ points gives all of them, nearest first,
    and then repeats them from the start: slot $j$ holds neighbour $j \bmod n$. A cloud without
    points must have no queries.

    Args:
        pos: Positions of the points.
        query: Positions of the queries.
        k: How many neighbours.
        batch: Sorted cloud index of each point.
        query_batch: Sorted cloud index of each query.
        batch_size: Number of clouds, when the last ones may be empty.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$, **query:** $(M, D)$
        - **output:** $(M, k)$, indices into `pos`

    Raises:
        TypeError, ValueError: The point sets are malformed, or a query's cloud has no points.
        ModuleNotFoundError: The backend asked for is not installed.
    """
    check_positive("k", k)
    sizes = cloud_sizes(pos, batch, batch_size)
    query_sizes = cloud_sizes(query, query_batch, batch_size, name="query")
    if query.size(1) != pos.size(1) or query.dtype != pos.dtype or query.device != pos.device:
        raise ValueError(
            "pos and query must agree in dimension, dtype and device: "
            f"pos is {list(pos.shape)} {pos.dtype} on {pos.device}, "
            f"query {list(query.shape)} {query.dtype} on {query.device}"
        )
    check_extent("pos with query", pos, query)
    clouds = max(len(sizes), len(query_sizes))
    sizes += [0] * (clouds - len(sizes))
    query_sizes += [0] * (clouds - len(query_sizes))
    for cloud, (n, m) in enumerate(zip(sizes, query_sizes, strict=True)):
        if m and not n:
            raise ValueError(f"cloud {cloud} has {m} queries but no points to find")
    return search(pos, query, k, sizes, query_sizes, backend=backend)


def search(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    *,
    backend: str = "auto",
) -> Tensor:
    """As :func:`knn`, for clouds that are checked already and whose sizes are known."""
    pos, query = geometry_dtype(pos.detach()), geometry_dtype(query.detach())
    if query.size(0) == 0:
        return torch.empty(0, k, dtype=torch.int64, device=pos.device)
    asked, backend = backend, choose(backend, _automatic(pos, k, sizes))
    if backend == "numba":
        try:
            return _compiled(pos.cpu(), query.cpu(), k, sizes, query_sizes).to(pos.device)
        except OSError:  # Numba keeps what it compiles on a disk, which may be full
            if asked != "auto":
                raise
            backend = "kdtree" if pos.size(1) <= MANY_AXES else "torch"
    if backend == "torch":
        if pos.device.type == "cpu":
            return _all_pairs_numpy(pos, query, k, sizes, query_sizes)
        return _all_pairs(pos, query, k, sizes, query_sizes)
    if backend == "kdtree":
        index = _kd_trees(pos.cpu(), query.cpu(), k, sizes, query_sizes)
        return index.to(pos.device)
    return _refined(pos, query, k, sizes, query_sizes, backend)


def _automatic(pos: Tensor, k: int, sizes: Sequence[int]) -> str:
    if pos.device.type == "cpu":
        many_axes = pos.size(1) > MANY_AXES
        few = max(sizes) <= COMPILED_UP_TO + AND_A_NEIGHBOUR_MORE * k
        if (few or many_axes) and available("numba"):
            return "numba"
        few = max(sizes) <= ALL_PAIRS_UP_TO + AND_A_NEIGHBOUR * k
        return "torch" if few or many_axes else "kdtree"
    if pos.device.type == "cuda" and max(sizes) >= SEARCH_KERNEL_FROM:
        for name in ("torch-cluster", "pyg-lib"):
            if available(name):
                return name
    return "torch"


# All pairs, in plain torch ---------------------------------------------------------------------


def _all_pairs(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    out = torch.empty(query.size(0), k, dtype=torch.int64, device=pos.device)
    query_starts = starts_of(query_sizes)
    for clouds in of_like_size([n if m else 0 for n, m in zip(sizes, query_sizes, strict=True)]):
        slots, count = padded_rows(sizes, clouds, pos.device)
        m = [query_sizes[c] for c in clouds]
        # Row r of the queries belongs to row `owner[r]` of the points.
        owner = torch.repeat_interleave(
            torch.arange(len(clouds), device=pos.device), torch.tensor(m, device=pos.device)
        )
        row = torch.cat(
            [torch.arange(query_starts[c], query_starts[c + 1], device=pos.device) for c in clouds]
        )
        points = take(pos, slots)  # [S, W, D]
        width = slots.size(1) * (pos.size(1) if len(clouds) > 1 else 1)
        for part in torch.arange(len(row), device=pos.device).split(max(1, CHUNK // width)):
            s = owner[part]
            if len(clouds) == 1:  # broadcast: no copy of the points for each query
                d = squared_distance(take(query, row[part])[:, None], points)
            elif len(set(m)) == 1 and len(part) == len(row):
                d = squared_distance(
                    query[row].view(len(clouds), m[0], 1, -1), points[:, None]
                ).flatten(0, 1)
            else:
                d = squared_distance(take(query, row[part])[:, None], points[s])
            if min(sizes[c] for c in clouds) < slots.size(1):
                pad = torch.arange(slots.size(1), device=pos.device) >= count[s, None]
                d = d.masked_fill_(pad, torch.inf)
            nearest = slots[s[:, None], _smallest(d, k)]
            out[row[part]] = _repeat_short(nearest, k, count[s])
    return out


def _smallest(d: Tensor, k: int) -> Tensor:
    """Positions of the `k` smallest entries of each row, the lower position first in a tie."""
    k, width = min(k, d.size(1)), d.size(1)
    if width <= 2 * k + 32:
        return d.sort(dim=1, stable=True).indices[:, :k]
    value, index = d.topk(k + 1, dim=1, largest=False, sorted=True)
    # topk leaves open which of equal entries it takes and in which order: settle those rows.
    tied = (value[:, 1:] == value[:, :-1]).any(dim=1).nonzero().view(-1)
    index = index[:, :k].contiguous()
    for rows in tied.split(max(1, CHUNK // width)):
        index[rows] = d[rows].sort(dim=1, stable=True).indices[:, :k]
    return index


def _repeat_short(nearest: Tensor, k: int, count: Tensor) -> Tensor:
    """Let the rows with fewer than `k` neighbours repeat theirs from the start."""
    slot = torch.arange(k, device=nearest.device)
    if nearest.size(1) == k and bool((count >= k).all()):
        return nearest
    return nearest.gather(1, slot % count[:, None].clamp(max=k))


# All pairs, on the CPU ---------------------------------------------------------------------------


def _all_pairs_numpy(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    """Clouds of the same size are searched together, block by block in the threads there are."""
    p, q = pos.numpy(), query.numpy()
    out = np.empty((len(q), k), np.int64)
    starts, query_starts = np.array(starts_of(sizes)), np.array(starts_of(query_sizes))
    alike: dict[tuple[int, int], list[int]] = {}
    for cloud, shape in enumerate(zip(sizes, query_sizes, strict=True)):
        if shape[1]:
            alike.setdefault(shape, []).append(cloud)
    blocks = []
    for (n, m), clouds in alike.items():
        step = max(1, CHUNK_OF_THREAD // (n * m))
        rows = max(1, min(m, CHUNK_OF_THREAD // n))
        for i in range(0, len(clouds), step):
            blocks += [(clouds[i : i + step], n, j, min(j + rows, m)) for j in range(0, m, rows)]

    def search_block(block: tuple[list[int], int, int, int]) -> None:
        clouds, n, begin, end = block
        row = query_starts[clouds][:, None] + np.arange(begin, end)  # [S, M]
        slot = starts[clouds][:, None] + np.arange(n)  # [S, N]
        d, term = np.empty((2, *row.shape, n), p.dtype)
        for axis in range(p.shape[1]):
            np.subtract(q[row, axis][:, :, None], p[slot, axis][:, None], out=term if axis else d)
            np.square(term if axis else d, out=term if axis else d)
            if axis:
                d += term
        nearest = _smallest_numpy(d.reshape(-1, n), min(k, n))
        out[row.reshape(-1)] = nearest[:, np.arange(k) % n] + slot[:, :1].repeat(row.shape[1], 0)

    in_threads(search_block, blocks)
    return torch.from_numpy(out)


def _smallest_numpy(d: np.ndarray, k: int) -> np.ndarray:
    """As :func:`_smallest`: first leave out what is farther than a bound on the k-th smallest.

    Of the smallest entries of disjoint groups, k are no larger than the k-th smallest of them, so
    that is a bound; with some 4 k groups little more than k entries keep to it.
    """
    rows, width = d.shape
    if width <= max(64, 3 * k):
        return stable_order(torch.from_numpy(d))[:, :k].numpy()
    each = max(2, width // (4 * k))
    groups = width // each
    least = d[:, : groups * each].reshape(rows, each, groups).min(axis=1)
    least.partition(k - 1, axis=1)
    near = d <= least[:, k - 1, None]
    flat, count = np.flatnonzero(near), np.count_nonzero(near, axis=1)
    row = np.repeat(np.arange(rows), count)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(count) - count, count)
    value = np.full((rows, count.max()), np.inf, d.dtype)
    column = np.zeros(value.shape, np.int64)
    value[row, place] = d.reshape(-1)[flat]
    column[row, place] = flat - row * width
    order = stable_order(torch.from_numpy(value))[:, :k].numpy()
    return np.take_along_axis(column, order, axis=1)


# All pairs, in compiled loops on the CPU ---------------------------------------------------------


def _compiled(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    from pointcluster.geometry.loops import nearest

    axes, q = np.ascontiguousarray(pos.numpy().T), np.ascontiguousarray(query.numpy())
    starts, query_starts = np.array(starts_of(sizes)), np.array(starts_of(query_sizes))
    out = np.empty((len(q), k), np.int64)

    def some(begin: int, end: int) -> None:
        nearest(axes, q, k, starts, query_starts, begin, end, out)

    in_parts(some, len(q), sum(n * m for n, m in zip(sizes, query_sizes, strict=True)))
    return torch.from_numpy(out)


# KD-trees, on the CPU --------------------------------------------------------------------------


def _kd_trees(
    pos: Tensor, query: Tensor, k: int, sizes: Sequence[int], query_sizes: Sequence[int]
) -> Tensor:
    p, q = pos.numpy(), query.numpy()
    out = np.empty((len(q), k), np.int64)
    starts, query_starts = starts_of(sizes), starts_of(query_sizes)
    clouds = [c for c, m in enumerate(query_sizes) if m]
    workers = thread_count() if len(clouds) == 1 else 1

    def one(cloud: int) -> None:
        points = p[starts[cloud] : starts[cloud + 1]]
        queries = slice(query_starts[cloud], query_starts[cloud + 1])
        out[queries] = _kd_tree(points, q[queries], k, workers) + starts[cloud]

    in_threads(one, clouds)
    return torch.from_numpy(out)


def _kd_tree(p: np.ndarray, q: np.ndarray, k: int, workers: int) -> np.ndarray:
    """The `k` nearest of the points `p` [N, D] for the queries `q` [M, D] of one cloud."""
    n = len(p)
    if n <= k + 1:
        order = np.argsort(_squared(p[None], q[:, None]), axis=1, kind="stable")
        return order[:, np.arange(k) % n]
    # An unbalanced tree is as fast to ask and much faster to build.
    tree = cKDTree(p, balanced_tree=False, compact_nodes=False)
    index = tree.query(q, k + 1, workers=workers)[1]
    unsure = _unsure(_squared(np.take(p, index, axis=0), q[:, None]), index, k)
    index = index[:, :k]
    if unsure.any():
        rows = np.flatnonzero(unsure)
        index[rows] = _settle(p, q[rows], k)
    return index


def _unsure(d: np.ndarray, index: np.ndarray, k: int) -> np.ndarray:
    """Rows of candidates whose order, or whose last neighbour, rounding or a tie leaves open."""
    swapped = (d[:, 1:k] < d[:, : k - 1]) | (
        (d[:, 1:k] == d[:, : k - 1]) & (index[:, 1:k] < index[:, : k - 1])
    )
    return swapped.any(axis=1) | (d[:, k] <= _beyond(d[:, k - 1]))


def _beyond(d: np.ndarray) -> np.ndarray:
    """A distance that no point at distance `d` can be given by another order of rounding."""
    return d * (1 + 64 * np.finfo(d.dtype).eps)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`squared_distance` for arrays: the same operations in the same order."""
    total = np.square(a[..., 0] - b[..., 0])
    for axis in range(1, a.shape[-1]):
        total += np.square(a[..., axis] - b[..., axis])
    return total


def _settle(p: np.ndarray, q: np.ndarray, k: int) -> np.ndarray:
    """The exact answer for queries with ties: look farther until the last tie is complete.

    Coincident points are looked up as one, and then stand for their first `k` members: otherwise a
    million copies of one point would be a million ties for each of them.
    """
    if len(q) * len(p) <= CHUNK // 8:  # few of them: look at every point
        return np.argsort(_squared(p[None], q[:, None]), axis=1, kind="stable")[:, :k]
    unique, inverse, count = np.unique(p, axis=0, return_inverse=True, return_counts=True)
    member = np.argsort(inverse.reshape(-1), kind="stable")  # unique point -> its members, rising
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    tree = cKDTree(unique, balanced_tree=False, compact_nodes=False)
    out = np.empty((len(q), k), np.int64)
    todo, look = np.arange(len(q)), min(k + 8, len(unique))
    while len(todo):
        again = []
        for rows in np.array_split(todo, -(-len(todo) * look // (CHUNK // 8))):
            u = tree.query(q[rows], look)[1].reshape(len(rows), look)
            d = _squared(np.take(unique, u, axis=0), q[rows][:, None])
            order = np.argsort(d, axis=1, kind="stable")
            u, d = np.take_along_axis(u, order, 1), np.take_along_axis(d, order, 1)
            last = (np.cumsum(count[u], axis=1) >= k).argmax(axis=1)  # holds the k-th neighbour
            kth = d[np.arange(len(rows)), last]
            done = (d[:, -1] > _beyond(kth)) | (look == len(unique))
            again.append(rows[~done])
            if done.any():
                out[rows[done]] = _expand(u[done], d[done], kth[done], k, count, first, member)
        todo, look = np.concatenate(again), min(2 * look, len(unique))
    return out


def _expand(
    u: np.ndarray,
    d: np.ndarray,
    kth: np.ndarray,
    k: int,
    count: np.ndarray,
    first: np.ndarray,
    member: np.ndarray,
) -> np.ndarray:
    """Replace unique points by their members and keep the first `k` by (distance, index)."""
    row, slot = np.nonzero(d <= kth[:, None])
    point = u[row, slot]
    copies = np.minimum(count[point], k)
    which = np.repeat(np.arange(len(row)), copies)
    step = np.arange(len(which)) - np.repeat(np.cumsum(copies) - copies, copies)
    index = member[first[point][which] + step]
    row, distance = row[which], d[row, slot][which]
    order = np.lexsort((index, distance, row))
    start = np.searchsorted(row[order], np.arange(len(u)))
    return index[order][start[:, None] + np.arange(k)]


# Compiled kernels: candidates from them, the order from us ---------------------------------------


def _refined(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    backend: str,
) -> Tensor:
    """Take one neighbour more than needed from a compiled kernel, and settle what is unsure.

    The kernels round differently on each device and break ties as they like. Clouds too small to
    have that one neighbour more are searched by comparing all pairs, and so is everything where a
    kernel gives up (torch-cluster's on a GPU takes 100 neighbours and distances up to a limit).
    """
    if k + 1 > KERNEL_NEIGHBOURS:
        return _all_pairs(pos, query, k, sizes, query_sizes)
    large = [n if n > k + 1 and m else 0 for n, m in zip(sizes, query_sizes, strict=True)]
    out = torch.empty(query.size(0), k, dtype=torch.int64, device=pos.device)
    sure = torch.zeros(query.size(0), dtype=torch.bool, device=pos.device)
    if any(large):
        keep = torch.tensor([n > 0 for n in large], device=pos.device)
        cloud = cloud_index(sizes, pos.device)
        query_cloud = cloud_index(query_sizes, pos.device)
        source = keep[cloud].nonzero().view(-1)
        target = keep[query_cloud].nonzero().view(-1)
        found = _kernel(
            pos[source],
            query[target],
            k + 1,
            cloud[source],
            query_cloud[target],
            len(sizes),
            backend,
        )
        if len(found) != len(target) * (k + 1):
            return _all_pairs(pos, query, k, sizes, query_sizes)
        index = source[found].view(-1, k + 1)
        d = squared_distance(take(pos, index), query[target][:, None])
        wrong = (d[:, 1:k] < d[:, : k - 1]) | (
            (d[:, 1:k] == d[:, : k - 1]) & (index[:, 1:k] < index[:, : k - 1])
        )
        close = d[:, k] <= d[:, k - 1] * (1 + 64 * torch.finfo(d.dtype).eps)
        out[target] = index[:, :k]
        sure[target] = ~(wrong.any(dim=1) | close)
    rest = (~sure).nonzero().view(-1)
    if len(rest):
        counts = torch.bincount(cloud_index(query_sizes, pos.device)[rest], minlength=len(sizes))
        out[rest] = _all_pairs(pos, query[rest], k, sizes, counts.tolist())
    return out


def _kernel(
    pos: Tensor,
    query: Tensor,
    k: int,
    batch: Tensor,
    query_batch: Tensor,
    batch_size: int,
    backend: str,
) -> Tensor:
    """Neighbours as a compiled kernel gives them, query by query."""
    if backend == "torch-cluster":
        import torch_cluster

        found = torch_cluster.knn(pos, query, k, batch, query_batch, batch_size=batch_size)
    else:
        import torch_geometric.nn

        found = torch_geometric.nn.knn(pos, query, k, batch, query_batch, batch_size=batch_size)
    return found[1]
