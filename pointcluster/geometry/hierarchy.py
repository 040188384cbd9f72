"""The geometry of all stages of a network for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
from pointcluster.geometry.partition import canonical_order, partition, region_levels
from pointcluster.geometry.region import ClusterGeometry, stored_geometries
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import alike, cloud_index, numbered, on_device, take
from pointcluster.ops.search.threads import searching


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


@searching
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
    pos = geometry_dtype(given[0])
    # Whatever order points come in: ties go by the canonical one.
    canonical = canonical_order(pos, sizes)
    points = take(pos, canonical)
    counts, kept = _kept(points, given[1], plans, sizes, sampling, start, generator, backend)
    stages = _by_region(points, canonical, plans, sizes, counts, kept)
    # Stages that ask for as many neighbours and centres are searched at once.
    like: dict[StagePlan, list[int]] = {}
    for s, plan in enumerate(plans):
        like.setdefault(plan._replace(ratio=1.0, region_size=None), []).append(s)
    found: dict[int, StageGeometry] = {}
    carried: dict[int, CarryGeometry] = {}
    for same in like.values():
        searched, carry = _searched([stages[s] for s in same], backend)
        found.update(zip(same, searched, strict=True))
        carried.update(zip(same, carry, strict=False))  # none, where none is asked for
    geometries = [found[s] for s in range(len(plans))]
    carries = [carried[s] for s in sorted(carried)]
    # The first stage's indices count the input's points, which are carried back in their order.
    if geometries:
        first = geometries[0].anchors
        first = first._replace(grouping=canonical.take(first.grouping))
        geometries[0] = geometries[0]._replace(anchors=first)
    if carries:
        place = torch.empty_like(canonical)
        place[canonical] = torch.arange(len(place), device=place.device)
        carries[0] = CarryGeometry(*(each[place] for each in carries[0]))
    return Hierarchy(tuple(geometries), len(sizes), tuple(plans), *given, tuple(carries))


class _Stage(NamedTuple):
    """What is known of a stage before its searches."""

    plan: StagePlan
    before: Tensor
    """Positions of the points before. [N, D]"""
    sizes: list[int]
    """How many of them each cloud has."""
    pos: Tensor
    """Positions of the anchors, region by region. [M, D]"""
    counts: list[int]
    """How many of them each cloud has."""
    regions: list[list[int]]
    """Anchors of each region, for each cloud."""
    anchor: Tensor
    """Which of the points before they are. [M]"""


def _kept(
    points: Tensor,
    batch: Tensor,
    plans: Sequence[StagePlan],
    sizes: Sequence[int],
    sampling: str,
    start: str,
    generator: torch.Generator | None,
    backend: str,
) -> tuple[list[list[int]], list[Tensor]]:
    """How many anchors of each cloud each stage keeps, and which, rising."""
    counts = [[0] * len(sizes) for _ in plans]
    # A point is an anchor of the stages that keep more of its cloud than its rank says.
    ids = torch.arange(len(points), device=points.device)
    rank = torch.full_like(ids, len(points))
    # Voxels as long as a cloud is large, then farthest point sampling of what is left, once.
    left, begin = list(sizes), [0] * len(sizes)
    large = [c for c, n in enumerate(sizes) if n and chosen_by_voxel(n, sampling)]
    if large:
        parts = list(ids.split(left))
        for c in large:
            while begin[c] < len(plans) and chosen_by_voxel(left[c], sampling):
                num = _rounded(left[c], plans[begin[c]])
                parts[c] = parts[c][voxels(points[parts[c]], [num], [left[c]])[0]]
                left[c] = counts[begin[c]][c] = len(parts[c])
                rank[parts[c]] = left[c] - 1
                begin[c] += 1
        ids = torch.cat(parts)
    now = left
    for s, plan in enumerate(plans):
        num_of = {n: _rounded(n, plan) for n in now}
        now = [num_of[n] if s >= b else n for n, b in zip(now, begin, strict=True)]
        counts[s] = [n if s >= b else m for n, m, b in zip(now, counts[s], begin, strict=True)]
    nums = [counts[b][c] if b < len(plans) else 0 for c, b in enumerate(begin)]
    if any(nums):
        picks = sample(
            take(points, ids), nums, left, start=start, generator=generator, backend=backend
        )
        rank[ids[picks]] = numbered(nums, ids.device)
    kept = []
    for of_stage in counts:
        limit = of_stage[0] if alike(of_stage) else on_device(of_stage, ids.device)[batch]
        kept.append(torch.nonzero_static(rank < limit, size=sum(of_stage)).view(-1))
    return counts, kept


def _by_region(
    points: Tensor,
    canonical: Tensor,
    plans: Sequence[StagePlan],
    sizes: list[int],
    counts: list[list[int]],
    kept: list[Tensor],
) -> list[_Stage]:
    """Store the anchors of all stages region by region, and tell which of those before they are."""
    levels = [
        region_levels(n, plan.region_size)
        for plan, of_stage in zip(plans, counts, strict=True)
        for n in of_stage
    ]
    rising = torch.cat([canonical[:0], *kept])
    order, regions = partition(take(points, rising), [*chain(*counts)], levels)
    stored = rising[order].split([len(ids) for ids in kept])
    # Where a point was stored in the stage before: in the input, for the first.
    where, numbers = canonical.clone(), torch.arange(len(points), device=points.device)
    stages: list[_Stage] = []
    before = points
    for s, (plan, ids) in enumerate(zip(plans, stored, strict=True)):
        pos, cut = take(points, ids), regions[s * len(sizes) : (s + 1) * len(sizes)]
        stages.append(_Stage(plan, before, sizes, pos, counts[s], cut, where[ids]))
        where[ids] = numbers[: len(ids)]
        before, sizes = pos, counts[s]
    return stages


def _searched(
    stages: Sequence[_Stage], backend: str
) -> tuple[list[StageGeometry], list[CarryGeometry]]:
    """Groupings, centres, and what is carried back, for stages that ask for as many of them."""
    plan = stages[0].plan
    before, pos = [stage.before for stage in stages], [stage.pos for stage in stages]
    sizes, counts = [stage.sizes for stage in stages], [stage.counts for stage in stages]
    anchors = gathered_anchors(
        before, pos, [stage.anchor for stage in stages], plan.k, sizes, counts, backend=backend
    )
    clusters = stored_geometries(
        torch.cat(pos),
        [stage.regions for stage in stages],
        [each.batch for each in anchors],
        num_centers=plan.num_centers,
        k=plan.center_k,
        backend=backend,
    )
    geometries = [StageGeometry(*parts) for parts in zip(anchors, clusters, strict=True)]
    if not plan.carry_k:
        return geometries, []
    points, every = torch.cat(before), torch.cat(pos)
    carry = carry_geometry(points, every, plan.carry_k, [*chain(*sizes)], [*chain(*counts)])
    lengths, start, carries = [len(each) for each in before], 0, []
    for index, weight, here in zip(*(each.split(lengths) for each in carry), pos, strict=True):
        carries.append(CarryGeometry(index - start, weight))
        start += len(here)
    return geometries, carries


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


@searching
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
