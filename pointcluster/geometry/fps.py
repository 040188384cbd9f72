"""Anchors chosen evenly in space: farthest point sampling, and one point a voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.ops.search.clouds import on_device
from pointcluster.ops.search.threads import searching


@searching
def fps(
    pos: Tensor,
    num: int | float | Sequence[int],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
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
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
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
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    nums = anchor_numbers(num, sizes)
    pos = geometry_dtype(pos.detach())
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
    if start not in ("far", "first", "random"):
        raise ValueError(f"start must be 'far', 'first' or 'random', found {start!r}")
    first = None  # the farthest from the mean
    if start == "first":
        first = torch.zeros(len(sizes), dtype=torch.int64, device=pos.device)
    elif start == "random":
        drawn = [int(torch.randint(max(n, 1), (), generator=generator)) for n in sizes]
        first = on_device(drawn, pos.device)
    return ops.fps(pos, sizes, nums, first, backend=backend)


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
