"""Where points are reduced: anchors and the points that they gather, stage by stage."""

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


class AnchorPlan(NamedTuple):
    """What to build for a stage of anchors alone."""

    num: int | float | Sequence[int]
    """Anchors a cloud, as in :func:`fps`: a number, or a share of the points before in (0, 1]."""
    k: int
    """Points an anchor gathers."""
    start: str = "far"
    """Where farthest point sampling begins, as in :func:`fps`."""


class AnchorHierarchy(NamedTuple):
    """The geometry of all stages of a network without regions, whose points are anchors alone."""

    stages: tuple[AnchorGeometry, ...]
    batch_size: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> AnchorHierarchy:
        """The same geometry on a device."""
        return moved(self, device, non_blocking)


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
    check_sampling(sampling)
    sizes = cloud_sizes(pos, batch, batch_size)
    nums = anchor_numbers(num, sizes)
    pos = geometry_dtype(pos.detach())
    by_voxel = [chosen_by_voxel(n, sampling) for n in sizes]
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
    return gathered_anchors(pos, pos[anchor], anchor, grouping, sizes, counts)


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
    plans = [AnchorPlan(num, k, "first" if stage else start) for stage, num in enumerate(nums)]
    return planned_anchors(
        pos,
        plans,
        batch,
        batch_size=batch_size,
        sampling=sampling,
        generator=generator,
        backend=backend,
    )


def planned_anchors(
    pos: Tensor,
    plans: Sequence[AnchorPlan],
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sampling: str = "auto",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> AnchorHierarchy:
    r"""Choose anchors and their groups as plans say, each stage among those of the one before.

    Args:
        pos: Positions of the points.
        plans: What to build, stage by stage, such as the `plans` of a network.
        batch: Sorted cloud index of each point.
        batch_size: Number of clouds, when the last ones may be empty.
        sampling: As in :func:`anchor_geometry`.
        generator: Source of randomness for `start="random"`.
        backend: `"auto"`, or a name that :func:`pointcluster.backends` lists.

    Shapes:
        - **pos:** $(N, D)$

    Raises:
        TypeError, ValueError: The point set or a plan is malformed.
    """
    stages: list[AnchorGeometry] = []
    for plan in plans:
        stage = anchor_geometry(
            pos,
            plan.num,
            plan.k,
            batch,
            batch_size=batch_size,
            sampling=sampling,
            start=plan.start,
            generator=generator,
            backend=backend,
        )
        pos, batch, batch_size = stage.pos, stage.batch, stage.batch_size
        stages.append(stage)
    size = stages[-1].batch_size if stages else len(cloud_sizes(pos, batch, batch_size))
    return AnchorHierarchy(tuple(stages), size)


def gathered_anchors(
    pos: Tensor,
    anchor_pos: Tensor,
    anchor: Tensor,
    grouping: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
) -> AnchorGeometry:
    """The geometry of anchors that are chosen, with groupings that are known."""
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


def check_sampling(sampling: str) -> None:
    """Check the name of a way to choose anchors.

    Raises:
        ValueError: It is unknown.
    """
    if sampling not in ("auto", "fps", "voxel"):
        raise ValueError(f"sampling must be 'auto', 'fps' or 'voxel', found {sampling!r}")


def chosen_by_voxel(size: int, sampling: str) -> bool:
    """Whether a cloud of so many points gets its anchors one a voxel."""
    return sampling == "voxel" or (sampling == "auto" and size > FPS_LIMIT)


def moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    """Tuples of tensors on a device; what is no tensor stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=non_blocking)
    if not isinstance(value, tuple):
        return value
    parts = (moved(each, device, non_blocking) for each in value)
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
