"""The geometry of all stages of a network for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pointcluster.geometry.check import check_positive, cloud_sizes
from pointcluster.geometry.distance import cloud_index, geometry_dtype, starts_of, take
from pointcluster.geometry.fps import anchor_numbers, sample, voxels
from pointcluster.geometry.knn import search
from pointcluster.geometry.region import (
    ClusterGeometry,
    canonical_order,
    partition,
    region_levels,
    stored_geometry,
)
from pointcluster.geometry.threads import threads_for_searches

FPS_LIMIT = 16_384
"""A cloud with more points than this gets its anchors one a voxel, unless told otherwise."""


class AnchorGeometry(NamedTuple):
    """Where points are reduced: anchors and the points each of them gathers."""

    anchor: Tensor
    """Index of each anchor among the points before. [M]"""
    grouping: Tensor
    """Indices of the k points before that are nearest to it, nearest first. [M, k]"""
    relative: Tensor
    """Their positions minus the anchor's. [M, k, D]"""
    radius: Tensor
    """Mean distance of the farthest of them, a cloud: the scale to see `relative` at. [B]"""
    pos: Tensor
    """Positions of the anchors. [M, D]"""
    batch: Tensor
    """Cloud of each anchor. [M]"""
    num_points: int
    """Number of points before, N."""
    batch_size: int
    """Number of clouds B, empty ones included."""
    cloud_size: int | None
    """Anchors a cloud where all have the same number."""
    outside: bool = False
    """Whether the index `num_points` occurs, which stands for zeros (the border of a picture)."""


class StageGeometry(NamedTuple):
    """One stage: how its points come from those before, and where they are clustered."""

    anchors: AnchorGeometry
    clusters: ClusterGeometry


class StagePlan(NamedTuple):
    """What to build for a stage."""

    ratio: float
    """Anchors as a share of the points before, in (0, 1]."""
    k: int
    """Points an anchor gathers."""
    region_size: int | None
    """Most points a region; `None`: each cloud is one region."""
    num_centers: int
    """Centres a region."""
    center_k: int
    """Points a centre is the mean of."""


class Hierarchy(NamedTuple):
    """The geometry of all stages; the first one's indices count the input's points."""

    stages: tuple[StageGeometry, ...]
    batch_size: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Hierarchy:
        """The same geometry on a device."""
        return _moved(self, device, non_blocking)


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=non_blocking)
    if not isinstance(value, tuple):
        return value
    moved = (_moved(each, device, non_blocking) for each in value)
    return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)


class AnchorHierarchy(NamedTuple):
    """The geometry of all stages of a network without regions, whose points are anchors alone."""

    stages: tuple[AnchorGeometry, ...]
    batch_size: int


@threads_for_searches()
def anchor_geometry(
    pos: Tensor,
    num: int | float | Sequence[int],
    k: int,
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sampling: str = "auto",
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> AnchorGeometry:
    r"""Choose anchors, and for each the `k` nearest points of its cloud.

    Args:
        pos: Positions of the points.
        num: Anchors a cloud, as in :func:`fps`.
        k: Points an anchor gathers.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        sampling: `"fps"`, `"voxel"`, or `"auto"`: one a voxel for clouds of more than
            16,384 points.
        start: Where farthest point sampling begins, as in :func:`fps`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set is malformed or an argument makes no sense.
    """
    check_positive("k", k)
    _check_sampling(sampling)
    sizes = cloud_sizes(pos, batch, batch_size)
    nums = anchor_numbers(num, sizes)
    pos = geometry_dtype(pos.detach())
    by_voxel = [_by_voxel(n, sampling) for n in sizes]
    out: list[Tensor] = []
    start_of = starts_of(sizes)
    for wanted in (True, False):
        if not any(n and v == wanted for n, v in zip(sizes, by_voxel, strict=True)):
            continue
        chosen = [m if v == wanted else 0 for m, v in zip(nums, by_voxel, strict=True)]
        if wanted:
            out.append(voxels(pos, chosen, sizes)[0])
        else:
            out.append(
                sample(pos, chosen, sizes, start=start, generator=generator, backend=backend)
            )
    anchor = torch.cat(out) if out else torch.empty(0, dtype=torch.int64, device=pos.device)
    cloud = torch.bucketize(
        anchor, torch.tensor(start_of[1:], dtype=torch.int64, device=pos.device), right=True
    )
    if len(out) > 1:
        by_cloud = cloud.sort(stable=True).indices
        anchor, cloud = anchor[by_cloud], cloud[by_cloud]
    counts = torch.bincount(cloud, minlength=len(sizes)).tolist()
    grouping = search(pos, pos[anchor], k, sizes, counts, backend=backend)
    return _anchors(pos, pos[anchor], anchor, grouping, sizes, counts)


def anchor_hierarchy(
    pos: Tensor,
    nums: Sequence[int | float],
    k: int,
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sampling: str = "auto",
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> AnchorHierarchy:
    r"""Choose anchors and their groups stage by stage, each among the anchors of the one before.

    Anchors lie in the order in which they were chosen: with farthest point sampling those of a
    stage are the first ones of the stage before, and `start="first"` begins every stage at one
    point.

    Args:
        pos: Positions of the points.
        nums: Anchors a cloud of each stage, as in :func:`fps`.
        k: Points an anchor gathers.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        sampling: As in :func:`anchor_geometry`.
        start: Where farthest point sampling begins in the first stage, as in :func:`fps`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set is malformed or an argument makes no sense.
    """
    stages: list[AnchorGeometry] = []
    for num in nums:
        stage = anchor_geometry(
            pos,
            num,
            k,
            batch,
            batch_size=batch_size,
            sampling=sampling,
            start="first" if stages else start,
            generator=generator,
            backend=backend,
        )
        pos, batch, batch_size = stage.pos, stage.batch, stage.batch_size
        stages.append(stage)
    size = stages[-1].batch_size if stages else len(cloud_sizes(pos, batch, batch_size))
    return AnchorHierarchy(tuple(stages), size)


def _anchors(
    pos: Tensor,
    anchor_pos: Tensor,
    anchor: Tensor,
    grouping: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
) -> AnchorGeometry:
    batch = cloud_index(counts, pos.device)
    relative = take(pos, grouping).sub_(anchor_pos[:, None])
    used = torch.tensor(list(sizes), dtype=torch.int64, device=pos.device).clamp(
        1, grouping.size(1)
    )[batch]
    farthest = relative[torch.arange(len(relative), device=pos.device), used - 1]
    reach = torch.linalg.vector_norm(farthest, dim=1)
    radius = scatter(reach, batch, dim_size=len(counts), reduce="mean")
    return AnchorGeometry(
        anchor=anchor,
        grouping=grouping,
        relative=relative,
        radius=torch.where(radius > 0, radius, 1.0),  # one point, or coincident ones
        pos=anchor_pos,
        batch=batch,
        num_points=len(pos),
        batch_size=len(counts),
        cloud_size=counts[0] if len(set(counts)) == 1 and counts[0] > 0 else None,
    )


def _check_sampling(sampling: str) -> None:
    if sampling not in ("auto", "fps", "voxel"):
        raise ValueError(f"sampling must be 'auto', 'fps' or 'voxel', found {sampling!r}")


def _by_voxel(size: int, sampling: str) -> bool:
    return sampling == "voxel" or (sampling == "auto" and size > FPS_LIMIT)


@threads_for_searches()
def build_hierarchy(
    pos: Tensor,
    plans: Sequence[StagePlan],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sampling: str = "auto",
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Hierarchy:
    r"""Work out anchors, groupings, regions and centres of all stages of a network.

    Stage $s$ keeps $n_s = \lceil r_s n_{s-1} \rceil$ anchors a cloud, a few more where that makes
    its regions equally large. Farthest point sampling runs once: the anchors of a stage are the
    first ones of the stage before. Inside a stage points are stored region by region. A cloud's
    geometry depends neither on the other clouds of the batch nor on the order of its points (but
    for coincident ones).

    Args:
        pos: Positions of the points.
        plans: What to build, stage by stage.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        sampling: `"fps"`, `"voxel"`, or `"auto"`: one a voxel while a cloud has more than 16,384
            points.
        start: Where farthest point sampling begins, as in :func:`fps`; `"first"` is the first point
            by its coordinates here, since nothing depends on the order of the points.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set or a plan is malformed.
    """
    _check_sampling(sampling)
    for plan in plans:
        for name in ("k", "num_centers", "center_k"):
            check_positive(name, getattr(plan, name))
        if plan.region_size is not None:
            check_positive("region_size", plan.region_size)
    sizes = cloud_sizes(pos, batch, batch_size)
    pos = geometry_dtype(pos.detach())
    canonical = canonical_order(pos, sizes)
    points = pos[canonical]
    # `ids` are the stage's points, by their place in the canonical order and stored by region.
    ids = torch.arange(len(points), device=pos.device)
    rising = ids  # as in the canonical order: ties must not depend on the regions
    # A point's rank is the step at which farthest point sampling took it.
    rank = torch.full_like(ids, len(points))
    ranked = [False] * len(sizes)
    stages: list[StageGeometry] = []
    for plan in plans:
        nums = [_rounded(n, plan) for n in sizes]
        rising, counts = _reduce(
            points, rising, rank, ranked, nums, sizes, sampling, start, generator, backend
        )
        by_region, region_sizes = partition(points[rising], counts, plan.region_size)
        kept = rising[by_region]
        place = torch.empty_like(canonical)
        place[ids] = torch.arange(len(ids), device=ids.device)
        before, now = points[ids], points[kept]
        grouping = search(before, now, plan.k, sizes, counts, backend=backend)
        anchors = _anchors(before, now, place[kept], grouping, sizes, counts)
        clusters = stored_geometry(
            now,
            counts,
            region_sizes,
            num_centers=plan.num_centers,
            k=plan.center_k,
            backend=backend,
        )
        if not stages:  # the first stage's indices count the input's points
            anchors = anchors._replace(
                anchor=canonical[anchors.anchor], grouping=canonical.take(anchors.grouping)
            )
        stages.append(StageGeometry(anchors, clusters))
        ids, sizes = kept, counts
    return Hierarchy(tuple(stages), len(sizes))


def _rounded(size: int, plan: StagePlan) -> int:
    """How many anchors a cloud keeps: so many that its regions come out equally large."""
    num = anchor_numbers(float(plan.ratio), [size])[0]
    parts = 1 << region_levels(num, plan.region_size)
    return min(size, -(-num // parts) * parts)


def _reduce(
    points: Tensor,
    ids: Tensor,
    rank: Tensor,
    ranked: list[bool],
    nums: Sequence[int],
    sizes: Sequence[int],
    sampling: str,
    start: str,
    generator: torch.Generator | None,
    backend: str,
) -> tuple[Tensor, list[int]]:
    """The ids that a stage keeps, rising, and their number in each cloud."""
    by_voxel = [_by_voxel(n, sampling) for n in sizes]
    new = [
        m if n and not v and not r else 0
        for m, n, v, r in zip(nums, sizes, by_voxel, ranked, strict=True)
    ]
    if any(new):
        picks = ids[
            sample(points[ids], new, sizes, start=start, generator=generator, backend=backend)
        ]
        rank[picks] = torch.cat([torch.arange(m, device=ids.device) for m in new])
    for cloud, m in enumerate(new):
        ranked[cloud] |= m > 0
    limit = torch.repeat_interleave(
        torch.tensor(
            [0 if v else m for m, v in zip(nums, by_voxel, strict=True)], device=ids.device
        ),
        torch.tensor(list(sizes), dtype=torch.int64, device=ids.device),
    )
    keep = rank[ids] < limit
    counts = list(nums)
    if any(by_voxel):
        wanted = [m if v else 0 for m, v in zip(nums, by_voxel, strict=True)]
        chosen, found = voxels(points[ids], wanted, sizes)
        keep[chosen] = True
        counts = [f if v else m for m, f, v in zip(nums, found, by_voxel, strict=True)]
    return ids[keep], counts
