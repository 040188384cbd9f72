"""Anchors chosen evenly in space: farthest point sampling, and one point a voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pointcluster.geometry.backend import available, choose, extension
from pointcluster.geometry.check import check_positive, cloud_sizes
from pointcluster.geometry.distance import (
    cloud_index,
    geometry_dtype,
    of_like_size,
    padded_rows,
    squared_distance,
    starts_of,
    take,
)
from pointcluster.geometry.threads import in_parts, threads_for_searches
from pointcluster.ops.launch import outside_transforms

BUCKETS_FROM, BUCKETS_FROM_COMPILED = 24_000, 150_000
"""From this many points a cloud on, skipping far buckets beats looking at every point (CPU), in
NumPy, and in Numba or `fpsample`."""
SAMPLING_KERNEL_FROM = 97
"""From this many points a cloud on, a compiled kernel beats all clouds at once in plain torch
(GPU)."""
FEW_CLOUDS = 6
"""Up to this many clouds, one at a time in `fpsample` beats all at once in NumPy (CPU)."""


@outside_transforms
@threads_for_searches()
def fps(
    pos: Tensor,
    num: int | float | Sequence[int],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Choose anchors by farthest point sampling: each is the point farthest from those before.

    $$ a_{j+1} = \arg\max_n \min_{i \le j} d(n, a_i) $$

    with :func:`squared_distance` for $d$. Ties: the lower index is chosen. No point is chosen
    twice, so coincident points follow, lowest index first, when nothing else is left. A cloud with
    fewer points than asked for gives all of them; an empty one gives none. The anchors of a smaller
    `num` are the first ones of a larger: one run serves all stages of a hierarchy.

    "The Farthest Point Strategy for Progressive Image Sampling", Eldar et al., 1997.

    Args:
        pos: Positions of the points.
        num: Anchors a cloud: a number, one number a cloud, or as a float in (0, 1] the share of its
            points, rounded up.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        start: The first anchor: `"far"`, the point farthest from the cloud's mean (it moves with
            the points, however they are ordered; of points as far but for rounding, the first);
            `"first"`, the cloud's first point; `"random"`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$
        - **output:** $(M)$, indices into `pos`, cloud by cloud and in the order they were chosen

    Raises:
        TypeError, ValueError: The point set is malformed, or `num` or `start` makes no sense.
        ModuleNotFoundError: The backend asked for is not installed.
    """
    sizes = cloud_sizes(pos, batch, batch_size)
    nums = anchor_numbers(num, sizes)
    return sample(pos, nums, sizes, start=start, generator=generator, backend=backend)


def anchor_numbers(num: int | float | Sequence[int], sizes: Sequence[int]) -> list[int]:
    """How many anchors each cloud gets: at most as many as it has points.

    Raises:
        TypeError, ValueError: `num` is no positive number, no share in (0, 1], or a list of another
            length than there are clouds.
    """
    if isinstance(num, float):
        if not 0 < num <= 1:
            raise ValueError(f"a share of the points must lie in (0, 1], found {num}")
        return [math.ceil(num * n * (1 - 1e-12)) for n in sizes]  # 0.07 * 100 is 7.000000000000001
    if isinstance(num, Sequence) and not isinstance(num, str):
        if len(num) != len(sizes):
            raise ValueError(f"num lists {len(num)} clouds, the batch has {len(sizes)}")
        for m in num:
            check_positive("each entry of num", m, least=0)
        return [min(m, n) for m, n in zip(num, sizes, strict=True)]
    check_positive("num", num)
    return [min(num, n) for n in sizes]


def sample(
    pos: Tensor,
    nums: Sequence[int],
    sizes: Sequence[int],
    *,
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """As :func:`fps`, for clouds that are checked already and whose sizes are known."""
    pos = geometry_dtype(pos.detach())
    first = _first(pos, sizes, start, generator)
    starts = starts_of(sizes)
    asked = backend
    backend = choose(backend, _automatic(pos, sizes))
    if backend == "numba":
        try:
            return _compiled(pos.cpu(), nums, sizes, first).to(pos.device)
        except OSError:  # Numba keeps what it compiles on a disk, which may be full
            if asked != "auto":
                raise
            backend = "kdtree"
    out: list[Tensor | None] = [None] * len(sizes)
    for clouds in of_like_size([n if m else 0 for n, m in zip(sizes, nums, strict=True)]):
        n = max(sizes[c] for c in clouds)
        if backend == "kdtree" and (
            asked != "auto" or len(clouds) <= FEW_CLOUDS or n >= BUCKETS_FROM
        ):
            for c in clouds:
                points = pos[starts[c] : starts[c + 1]].cpu().numpy()
                found = _one_cloud(points, nums[c], first[c])
                out[c] = torch.from_numpy(found).to(pos.device) + starts[c]
            continue
        m, n_of, f = ([part[c] for c in clouds] for part in (nums, sizes, first))
        if backend in ("torch", "kdtree"):
            rows, _ = padded_rows(sizes, clouds, pos.device)
            picks = _rows(take(pos, rows), m, n_of, f)
        else:
            picks = _verified(pos, clouds, starts, m, n_of, f, backend)
        if len(clouds) == len(sizes) and len(set(nums)) == 1:
            return (picks + torch.tensor(starts[:-1], device=pos.device)[:, None]).view(-1)
        for row, c in enumerate(clouds):
            out[c] = picks[row, : nums[c]] + starts[c]
    parts = [part for part in out if part is not None]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=pos.device)


def _automatic(pos: Tensor, sizes: Sequence[int]) -> str:
    if pos.device.type == "cpu":
        many = max(sizes, default=0) >= BUCKETS_FROM_COMPILED
        return "numba" if not many and available("numba") else "kdtree"
    if pos.device.type == "cuda" and max(sizes, default=0) >= SAMPLING_KERNEL_FROM:
        for name in ("torch-cluster", "pyg-lib"):
            if available(name):
                return name
    return "torch"


def _first(
    pos: Tensor, sizes: Sequence[int], start: str, generator: torch.Generator | None
) -> list[int]:
    """The first anchor of each cloud, counted inside the cloud."""
    if start == "first":
        return [0] * len(sizes)
    if start == "random":
        return [int(torch.randint(max(n, 1), (), generator=generator)) for n in sizes]
    if start != "far":
        raise ValueError(f"start must be 'far', 'first' or 'random', found {start!r}")
    first = [0] * len(sizes)
    for clouds in of_like_size(sizes):
        rows, count = padded_rows(sizes, clouds, pos.device)
        points = take(pos, rows)
        # Seen from its lowest corner, a cloud far from the origin has a mean with all its digits.
        points -= points.amin(dim=1, keepdim=True)
        pad = torch.arange(rows.size(1), device=pos.device) >= count[:, None]
        mean = points.masked_fill(pad[..., None], 0).sum(dim=1) / count[:, None]
        d = squared_distance(points, mean[:, None]).masked_fill_(pad, -1)
        # Symmetric clouds have several such points: rounding of the mean must not choose.
        near = d.amax(dim=1, keepdim=True) * (1 - 64 * torch.finfo(d.dtype).eps)
        for c, index in zip(clouds, (d >= near).int().argmax(dim=1).tolist(), strict=True):
            first[c] = index
    return first


# All clouds at once ------------------------------------------------------------------------------


def _rows(points: Tensor, nums: list[int], sizes: list[int], first: list[int]) -> Tensor:
    """Sample rows of points [S, W, D] together; row r is right in its first `nums[r]` entries."""
    if points.device.type == "cpu":  # NumPy calls cost a third of torch's on so little data
        return torch.from_numpy(_rows_numpy(points.numpy(), nums, sizes, first))
    slot = torch.arange(points.size(1), device=points.device)
    pad = slot >= torch.tensor(sizes, device=points.device)[:, None]
    nearest = torch.full_like(points[..., 0], torch.inf).masked_fill_(pad, -1)
    pick = torch.tensor(first, device=points.device)[:, None]
    picks = [pick]
    for _ in range(max(nums) - 1):
        chosen = points.gather(1, pick[..., None].expand(-1, -1, points.size(2)))
        nearest = torch.minimum(nearest, squared_distance(points, chosen))
        nearest = nearest.scatter(1, pick, -1)  # below every distance: never chosen again
        pick = nearest.argmax(dim=1, keepdim=True)
        picks.append(pick)
    return torch.cat(picks, dim=1)


def _rows_numpy(
    points: np.ndarray, nums: list[int], sizes: list[int], first: list[int]
) -> np.ndarray:
    count, width, dim = points.shape
    axes = np.ascontiguousarray(np.moveaxis(points, 2, 0))  # [D, S, W]
    flat = axes.reshape(dim, -1)
    start = np.arange(count) * width
    nearest = np.full((count, width), np.inf, points.dtype)
    nearest[np.arange(width) >= np.array(sizes)[:, None]] = -1
    distance, term = np.empty((2, count, width), points.dtype)
    picks = np.empty((max(nums), count), np.int64)
    picks[0] = first
    for before, pick in pairwise(picks):
        chosen = before + start
        anchor = flat.take(chosen, axis=1)[:, :, None]
        np.subtract(axes[0], anchor[0], out=distance)
        np.square(distance, out=distance)
        for axis in range(1, dim):
            np.subtract(axes[axis], anchor[axis], out=term)
            np.square(term, out=term)
            np.add(distance, term, out=distance)
        np.minimum(nearest, distance, out=nearest)
        nearest.reshape(-1)[chosen] = -1
        nearest.argmax(axis=1, out=pick)
    return np.ascontiguousarray(picks.T)


# Compiled loops, on the CPU ----------------------------------------------------------------------


def _compiled(
    pos: Tensor, nums: Sequence[int], sizes: Sequence[int], first: Sequence[int]
) -> Tensor:
    from pointcluster.geometry.loops import farthest

    axes = np.ascontiguousarray(pos.numpy().T)
    starts, first_ = np.array(starts_of(sizes)), np.array(first, np.int64)
    pick_starts = np.array(starts_of([min(m, n) for m, n in zip(nums, sizes, strict=True)]))
    out = np.empty(pick_starts[-1], np.int64)
    whole = np.empty(0, f"i{axes.itemsize}")

    def some(begin: int, end: int) -> None:
        farthest(axes, starts, first_, pick_starts, begin, end, out, whole)

    in_parts(some, len(sizes), sum(n * m for n, m in zip(sizes, nums, strict=True)))
    return torch.from_numpy(out)


# One cloud, on the CPU ---------------------------------------------------------------------------


def _one_cloud(points: np.ndarray, num: int, first: int) -> np.ndarray:
    compiled = points.dtype == np.float32 and extension("fpsample")[0]
    if len(points) >= (BUCKETS_FROM_COMPILED if compiled else BUCKETS_FROM):
        return _buckets(points, num, first)
    if compiled:
        return _fpsample(points, num, first)
    return _rows_numpy(points[None], [num], [len(points)], [first])[0, :num]


def _fpsample(points: np.ndarray, num: int, first: int) -> np.ndarray:
    """The plain sampler of `fpsample`, whose distances are rounded as ours.

    Of equally far points it takes the last, so it sees the cloud from its end. Its bucketed
    samplers would be faster on large clouds but do not begin at the point they are told to.
    """
    import fpsample

    last = len(points) - 1
    picks = last - fpsample.fps_sampling(
        np.ascontiguousarray(points[::-1]), num, start_idx=last - first
    ).astype(np.int64)
    # Once every point left coincides with an anchor it repeats itself: those points by index.
    unique, at = np.unique(picks, return_index=True)
    if len(unique) < num:
        picks = picks[np.sort(at)]
        left = np.setdiff1d(np.arange(last + 1), unique, assume_unique=True)
        picks = np.concatenate([picks, left[: num - len(picks)]])
    return picks


def _buckets(points: np.ndarray, num: int, first: int) -> np.ndarray:
    """Farthest point sampling that skips the buckets a new anchor is too far from to matter.

    The cloud is cut into boxes of equal numbers of points. A box whose nearest side is farther from
    the new anchor than any of its points is from its own nearest anchor stays as it is. The same
    anchors come out as from looking at every point ("QuickFPS", Han et al., 2023, does it in
    hardware).
    """
    from pointcluster.geometry.region import split_evenly

    levels = max(0, round(math.log2(len(points) / 96)))
    slots, count = split_evenly(torch.from_numpy(points), [len(points)], levels)
    index = slots.numpy()
    pad = np.arange(index.shape[1]) >= count.numpy()[:, None]
    # Rising indices inside a bucket, pads last: then argmax gives the lowest of equals.
    index = np.sort(np.where(pad, len(points), index), axis=1)
    box = points[np.minimum(index, len(points) - 1)]  # [R, W, D]
    axes = [np.ascontiguousarray(box[..., axis]) for axis in range(box.shape[-1])]
    low = np.where(pad[..., None], np.inf, box).min(axis=1)
    high = np.where(pad[..., None], -np.inf, box).max(axis=1)
    nearest = np.where(pad, -1, np.inf).astype(points.dtype)
    best, best_slot = nearest[:, 0].copy(), np.zeros(len(box), np.int64)
    home = np.empty(len(points), np.int64)  # a point's place in the flattened buckets
    home[index[~pad]] = np.flatnonzero(~pad)
    shrink = 1 - 64 * np.finfo(points.dtype).eps  # a bound must hold in spite of rounding

    picks = np.empty(num, np.int64)
    picks[0] = pick = first
    for j in range(1, num):
        anchor = points[pick]
        nearest.flat[home[pick]] = -1
        gap = np.maximum(np.maximum(low - anchor, anchor - high), 0)
        near = np.flatnonzero((gap * gap).sum(axis=1) * shrink <= best)
        d = np.square(axes[0][near] - anchor[0])
        for axis in range(1, len(axes)):
            d += np.square(axes[axis][near] - anchor[axis])
        d = np.minimum(nearest[near], d)
        nearest[near] = d
        slot = d.argmax(axis=1)
        best[near], best_slot[near] = d[np.arange(len(near)), slot], slot
        farthest = np.flatnonzero(best == best.max())
        picks[j] = pick = index[farthest, best_slot[farthest]].min()
    return picks


# Compiled kernels --------------------------------------------------------------------------------


def _verified(
    pos: Tensor,
    clouds: list[int],
    starts: list[int],
    nums: list[int],
    sizes: list[int],
    first: list[int],
    backend: str,
) -> Tensor:
    """Take the anchors from a compiled kernel and sample again the clouds where it strayed.

    A kernel that rounds another way, or breaks a tie another way, takes another point, and all
    points after it differ. Checking a given sequence needs no step-by-step work, so it is fast
    where the kernels are: on a GPU.
    """
    # The kernels begin at a cloud's first point: exchange it with the one to begin at.
    order = [torch.arange(starts[c], starts[c + 1], device=pos.device) for c in clouds]
    for part, f in zip(order, first, strict=True):
        part[0], part[f] = part[f].clone(), part[0].clone()
    index = torch.cat(order)
    found = index[_kernel(pos[index], nums, sizes, backend)]
    rows = torch.zeros(len(clouds), max(nums), dtype=torch.int64, device=pos.device)
    for row, (part, c) in enumerate(zip(found.split(nums), clouds, strict=True)):
        rows[row, : nums[row]] = part - starts[c]
    for row, c in enumerate(clouds):
        points = pos[starts[c] : starts[c + 1]]
        if not _is_farthest(points, rows[row, : nums[row]]):
            again = _rows(points[None], [nums[row]], [sizes[row]], [first[row]])
            rows[row, : nums[row]] = again[0, : nums[row]]
    return rows


def _is_farthest(points: Tensor, picks: Tensor) -> bool:
    """Whether `picks` is the sequence that the rule of :func:`fps` gives after its first entry."""
    if len(picks.unique()) < len(picks):
        return False
    taken = torch.full((len(points),), len(picks), device=picks.device)
    taken[picks] = torch.arange(len(picks), device=picks.device)
    nearest = torch.full_like(points[:, 0], torch.inf)
    block = max(1, (1 << 24) // len(points))
    for part in range(0, len(picks) - 1, block):
        chosen, following = picks[part : part + block], picks[part + 1 : part + block + 1]
        d = squared_distance(points[chosen][:, None], points)  # [J, N]
        d[0] = torch.minimum(d[0], nearest)
        d = d.cummin(dim=0).values
        nearest = d[-1]
        step = torch.arange(part, part + len(chosen), device=picks.device)
        farthest = d.masked_fill(taken <= step[:, None], -1).argmax(dim=1)
        if not torch.equal(farthest[: len(following)], following):
            return False
    return True


def _kernel(pos: Tensor, nums: list[int], sizes: list[int], backend: str) -> Tensor:
    """Anchors as a compiled kernel gives them, from each cloud's first point on."""
    batch = cloud_index(sizes, pos.device)
    # The kernels take a share and round it up: aim at the middle of the step.
    ratio = torch.tensor(
        [(m - 0.5) / n for m, n in zip(nums, sizes, strict=True)],
        dtype=pos.dtype,
        device=pos.device,
    )
    if backend == "torch-cluster":
        import torch_cluster

        found: Tensor = torch_cluster.fps(pos, batch, ratio, random_start=False)
        return found
    # pyg-lib takes one share for all clouds.
    parts, starts = [], starts_of(sizes)
    for cloud, (m, n) in enumerate(zip(nums, sizes, strict=True)):
        points = pos[starts[cloud] : starts[cloud + 1]]
        ptr = torch.tensor([0, n], device=pos.device)
        parts.append(torch.ops.pyg.fps(points, ptr, (m - 0.5) / n, False) + starts[cloud])
    return torch.cat(parts)


# One a voxel -------------------------------------------------------------------------------------


def voxel_anchors(
    pos: Tensor,
    num: int | float | Sequence[int],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
) -> Tensor:
    r"""Choose anchors one a voxel of an even grid: for clouds too large for :func:`fps`.

    The grid starts at the cloud's lowest corner; its voxels are cubes, of a size for which about
    `num` of them hold points (within 5 % for some hundreds and more; coarse grids grow in steps).
    In each, the point nearest to the voxel's middle is the anchor, of equally near ones that of the
    lower index. The cost is that of sorting the points, however many anchors.

    Args:
        pos: Positions of the points.
        num: Anchors a cloud, about: as in :func:`fps`.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.

    Shapes:
        - **pos:** $(N, D)$
        - **output:** $(M)$, indices into `pos`, rising

    Raises:
        TypeError, ValueError: The point set is malformed or `num` makes no sense.
    """
    sizes = cloud_sizes(pos, batch, batch_size)
    return voxels(pos, anchor_numbers(num, sizes), sizes)[0]


def voxels(pos: Tensor, nums: Sequence[int], sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
    """As :func:`voxel_anchors` for clouds that are checked, and the number of anchors of each."""
    pos = geometry_dtype(pos.detach())
    parts, start = [], 0
    for n, m in zip(sizes, nums, strict=True):
        part = torch.arange(n, device=pos.device)
        if 0 < m < n:
            part = _voxels(pos[start : start + n], m)
        parts.append(part[: n if m else 0] + start)
        start += n
    anchors = torch.cat(parts) if parts else torch.arange(0, device=pos.device)
    return anchors, [len(part) for part in parts]


def _voxels(points: Tensor, num: int) -> Tensor:
    low = points.amin(dim=0)
    extent = (points - low).amax(dim=0)
    if not bool(extent.any()):
        return torch.zeros(1, dtype=torch.int64, device=points.device)
    # Search the size on a logarithmic scale: the number of occupied voxels falls as its power.
    side, power = float(extent.max()) / num ** (1 / 2), 2.0
    smallest, largest = 0.0, math.inf
    for _ in range(12):
        key, offset = _voxel_keys(points - low, side)
        found = len(torch.unique(key))
        if abs(found - num) <= 0.05 * num:
            break
        if found > num:
            smallest = side
        else:
            largest = side
        step = side * (found / num) ** (1 / power)
        if not smallest < step < largest:
            step = math.sqrt(smallest * largest) if smallest and largest < math.inf else step
        if step == side or largest <= smallest * (1 + 1e-6):
            break
        side = step
    return _nearest_to_middles(key, offset)


def one_a_voxel(pos: Tensor, side: float) -> Tensor:
    r"""Choose one point of each voxel of a given size, of one cloud; otherwise as
    :func:`voxel_anchors`.

    Args:
        pos: Positions of one cloud's points.
        side: Edge of the voxels, in the positions' unit.

    Shapes:
        - **pos:** $(N, D)$
        - **output:** $(M)$, indices into `pos`, rising

    Raises:
        TypeError, ValueError: The point set is malformed, or `side` is not positive and finite.
    """
    if not 0 < side < math.inf:
        raise ValueError(f"the side of a voxel must be positive and finite, found {side}")
    if cloud_sizes(pos, None) == [0]:
        return torch.empty(0, dtype=torch.int64, device=pos.device)
    points = geometry_dtype(pos.detach())
    return _nearest_to_middles(*_voxel_keys(points - points.amin(dim=0), side))


def _nearest_to_middles(key: Tensor, offset: Tensor) -> Tensor:
    """Of each voxel the point nearest to its middle, of equally near ones that of lower index."""
    d = offset.square().sum(dim=1)
    # The first of each voxel by (distance, index): sort by distance, then stably by voxel.
    order = d.sort(stable=True).indices
    order = order[key[order].sort(stable=True).indices]
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return order[first].sort().values


def _voxel_keys(points: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """The voxel of each point as one number, and its offset from that voxel's middle."""
    cell = (points / side).floor()
    offset = points - (cell + 0.5) * side
    cell = cell.long()
    shape = cell.amax(dim=0) + 1
    if float(shape.double().prod()) < 2**62:
        key = cell[:, 0]
        for axis in range(1, points.size(1)):
            key = key * shape[axis] + cell[:, axis]
        return key, offset
    return torch.unique(cell, dim=0, return_inverse=True)[1], offset
