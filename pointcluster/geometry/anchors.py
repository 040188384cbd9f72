"""Where points are reduced: anchors and the points that they gather, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import anchor_numbers, sample, voxels
from pointcluster.ops.search.clouds import alike, cloud_index, common_size, on_device, take
from pointcluster.ops.search.threads import searching

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


@searching
def anchor_geometry(
    pos: Tensor,
    num: int | float | Sequence[int],
    k: int,
    batch: Tensor | None = None,
    *,
    batch_size: int | None = None,
    sizes: Sequence[int] | None = None,
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
        sizes: Points of each cloud, where the host knows them: then nothing is checked, and no
            device is waited for.
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
    sizes = cloud_sizes(pos, batch, batch_size, sizes=sizes)
    pos = geometry_dtype(pos.detach())
    return sized_anchors(
        pos, num, k, sizes, sampling=sampling, start=start, generator=generator, backend=backend
    )[0]


def sized_anchors(
    pos: Tensor,
    num: int | float | Sequence[int],
    k: int,
    sizes: Sequence[int],
    *,
    sampling: str = "auto",
    start: str = "far",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> tuple[AnchorGeometry, list[int]]:
    """As :func:`anchor_geometry` for clouds that are checked, and the anchors of each."""
    check_positive("k", k)
    check_sampling(sampling)
    counts, device = anchor_numbers(num, sizes), pos.device
    by_voxel = [n > 0 and chosen_by_voxel(n, sampling) for n in sizes]
    some = [0 if voxel else m for m, voxel in zip(counts, by_voxel, strict=True)]
    anchor = torch.empty(0, dtype=torch.int64, device=device)
    if not all(n == 0 or voxel for n, voxel in zip(sizes, by_voxel, strict=True)):
        anchor = sample(pos, some, sizes, start=start, generator=generator, backend=backend)
    cloud = cloud_index(some, device)
    if any(by_voxel):
        others = [m if voxel else 0 for m, voxel in zip(counts, by_voxel, strict=True)]
        chosen, found = voxels(pos, others, sizes)
        cloud, by_cloud = torch.cat([cloud, cloud_index(found, device)]).sort(stable=True)
        anchor = torch.cat([anchor, chosen])[by_cloud]
        counts = [m + n for m, n in zip(some, found, strict=True)]
    (geometry,) = gathered_anchors(
        [pos], [pos[anchor]], [anchor], k, [sizes], [counts], backend=backend
    )
    return geometry, counts


def gathered_anchors(
    before: Sequence[Tensor],
    now: Sequence[Tensor],
    anchors: Sequence[Tensor],
    k: int,
    sizes: Sequence[Sequence[int]],
    counts: Sequence[Sequence[int]],
    *,
    backend: str = "auto",
) -> list[AnchorGeometry]:
    """The geometry of anchors that are chosen, for stages at once.

    Args:
        before: Positions of the points before, for each stage.
        now: Positions of its anchors.
        anchors: Which of the points before they are.
        k: Points an anchor gathers.
        sizes: Points of each cloud before, for each stage.
        counts: Anchors of each cloud.
        backend: As in :func:`anchor_geometry`.
    """
    pos, anchor_pos, clouds = torch.cat(list(before)), torch.cat(list(now)), len(counts[0])
    all_sizes, all_counts = [*chain(*sizes)], [*chain(*counts)]
    grouping = ops.knn(pos, anchor_pos, k, all_sizes, all_counts, backend=backend)
    relative = take(pos, grouping).sub_(anchor_pos[:, None])
    batch = cloud_index(all_counts, pos.device)
    # How far the last of an anchor's neighbours is; a small cloud repeats its points.
    used = [min(max(n, 1), k) for n in all_sizes]
    if alike(used):
        farthest = relative[:, used[0] - 1]
    else:
        last = on_device(used, pos.device)[batch] - 1
        farthest = relative[torch.arange(len(last), device=pos.device), last]
    reach = torch.linalg.vector_norm(farthest, dim=1)
    total = reach.new_zeros(len(all_counts)).scatter_add_(0, batch, reach)
    radius = total / on_device([max(n, 1) for n in all_counts], pos.device)
    radius = torch.where(radius > 0, radius, 1.0)  # one point, or coincident ones
    lengths = [len(each) for each in now]
    parts = zip(
        grouping.split(lengths), relative.split(lengths), batch.split(lengths),
        radius.split(clouds), strict=True,
    )  # fmt: skip
    stages, start = [], 0
    for s, (near, offset, cloud, reach) in enumerate(parts):
        stages.append(
            AnchorGeometry(
                anchor=anchors[s],
                grouping=near - start if start else near,
                relative=offset,
                radius=reach,
                pos=now[s],
                batch=cloud - s * clouds if s else cloud,
                num_points=len(before[s]),
                batch_size=clouds,
                cloud_size=common_size(counts[s]),
            )
        )
        start += len(before[s])
    return stages


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
