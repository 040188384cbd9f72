"""The geometry of all stages of a network for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.anchors import (
    AnchorGeometry,
    check_sampling,
    chosen_by_voxel,
    gathered_anchors,
    sized_anchors,
)
from pointcluster.geometry.carry import CarryGeometry, carry_geometry
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import anchor_numbers, sample, voxels
from pointcluster.geometry.lattice import LatticePlan
from pointcluster.geometry.region import (
    ClusterGeometry,
    canonical_order,
    partition,
    region_levels,
    stored_geometry,
)
from pointcluster.ops.launch import outside_transforms
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import cloud_index, on_device
from pointcluster.ops.search.threads import threads_for_searches


class StageGeometry(NamedTuple):
    """One stage: how its points come from those before, and where they are clustered."""

    anchors: AnchorGeometry
    clusters: ClusterGeometry | None
    """`None` in networks that cluster the points of each anchor."""


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
    carry_k: int = 0
    """Anchors that a point's features are carried back from; 0: they are not carried back."""


class AnchorPlan(NamedTuple):
    """What to build for a stage of anchors alone."""

    num: int | float | Sequence[int]
    """Anchors a cloud, as in :func:`fps`: a number, or a share of the points before in (0, 1]."""
    k: int
    """Points an anchor gathers."""
    start: str = "far"
    """Where farthest point sampling begins, as in :func:`fps`."""


class Hierarchy(NamedTuple):
    """The geometry of all stages; the first one's indices count the input's points."""

    stages: tuple[StageGeometry, ...]
    batch_size: int
    """Number of clouds B, empty ones included."""
    plans: tuple[Any, ...] = ()
    """What it was built by."""
    pos: Tensor | None = None
    """The positions that it was built for, [N, D], and their clouds, [N]: to notice other ones."""
    batch: Tensor | None = None
    carries: tuple[CarryGeometry, ...] = ()
    """How the points before a stage get its anchors' features back, where all plans say so."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Hierarchy:
        """The same geometry on a device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if not isinstance(value, tuple):
                return value
            parts = map(move, value)
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)

        moved: Hierarchy = move(self)
        return moved


# They hold tensors and numbers alone: data sets that keep hierarchies on disk can be read again.
torch.serialization.add_safe_globals(
    [
        Hierarchy,
        StageGeometry,
        AnchorGeometry,
        CarryGeometry,
        ClusterGeometry,
        Regions,
        StagePlan,
        AnchorPlan,
        LatticePlan,
    ]
)


@outside_transforms
@threads_for_searches()
def build_hierarchy(
    pos: Tensor,
    plans: Sequence[StagePlan],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
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
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
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
    check_sampling(sampling)
    for plan in plans:
        for name in ("k", "num_centers", "center_k"):
            check_positive(name, getattr(plan, name))
        if plan.region_size is not None:
            check_positive("region_size", plan.region_size)
        check_positive("carry_k", plan.carry_k, least=0)
    if len({bool(plan.carry_k) for plan in plans}) > 1:
        raise ValueError("carry_k must be positive for all stages, or 0 for all")
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    given = pos.detach(), cloud_index(sizes, pos.device)
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
    carries: list[CarryGeometry] = []
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
        grouping = ops.knn(before, now, plan.k, sizes, counts, backend=backend)
        anchors = gathered_anchors(before, now, place[kept], grouping, sizes, counts)
        clusters = stored_geometry(
            now,
            counts,
            region_sizes,
            num_centers=plan.num_centers,
            k=plan.center_k,
            backend=backend,
        )
        if plan.carry_k:
            carries.append(carry_geometry(before, now, plan.carry_k, sizes, counts))
        if not stages:  # the first stage's indices count the input's points
            anchors = anchors._replace(
                anchor=canonical[anchors.anchor], grouping=canonical.take(anchors.grouping)
            )
            if carries:  # and its points are carried back in the input's order
                rank_of = torch.empty_like(canonical)
                rank_of[canonical] = ids
                carries[0] = CarryGeometry(*(each[rank_of] for each in carries[0]))
        stages.append(StageGeometry(anchors, clusters))
        ids, sizes = kept, counts
    return Hierarchy(tuple(stages), len(sizes), tuple(plans), *given, tuple(carries))


def anchor_hierarchy(
    pos: Tensor,
    nums: Sequence[int | float],
    k: int,
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
    sampling: str = "auto",
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Hierarchy:
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
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
        sampling: As in :func:`anchor_geometry`.
        start: Where farthest point sampling begins in the first stage, as in :func:`fps`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set is malformed or an argument makes no sense.
    """
    plans = [AnchorPlan(num, k, "first" if stage else start) for stage, num in enumerate(nums)]
    return planned_anchors(
        pos,
        plans,
        batch,
        batch_size=batch_size,
        sizes=sizes,
        sampling=sampling,
        generator=generator,
        backend=backend,
    )


@outside_transforms
@threads_for_searches()
def planned_anchors(
    pos: Tensor,
    plans: Sequence[AnchorPlan],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
    sampling: str = "auto",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Hierarchy:
    r"""Choose anchors and their groups as plans say, each stage among those of the one before.

    Args:
        pos: Positions of the points.
        plans: What to build, stage by stage, such as the `plans` of a network.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
        sampling: As in :func:`anchor_geometry`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set or a plan is malformed.
    """
    check_sampling(sampling)
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    given = pos.detach(), cloud_index(sizes, pos.device)
    pos, stages = geometry_dtype(given[0]), []
    for num, k, start in plans:
        anchors, sizes = sized_anchors(
            pos, num, k, sizes,
            sampling=sampling, start=start, generator=generator, backend=backend,
        )  # fmt: skip
        pos = anchors.pos
        stages.append(StageGeometry(anchors, None))
    return Hierarchy(tuple(stages), len(sizes), tuple(plans), *given)


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
    by_voxel = [chosen_by_voxel(n, sampling) for n in sizes]
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
    limit = on_device([0 if v else m for m, v in zip(nums, by_voxel, strict=True)], ids.device)
    keep = rank[ids] < limit[cloud_index(sizes, ids.device)]
    counts = list(nums)
    if any(by_voxel):
        wanted = [m if v else 0 for m, v in zip(nums, by_voxel, strict=True)]
        chosen, found = voxels(points[ids], wanted, sizes)
        keep[chosen] = True
        counts = [f if v else m for m, f, v in zip(nums, found, by_voxel, strict=True)]
    return ids[torch.nonzero_static(keep, size=sum(counts)).view(-1)], counts
