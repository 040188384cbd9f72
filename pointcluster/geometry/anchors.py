"""Where points are reduced: anchors and the points that they gather, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pointcluster import ops
from pointcluster.geometry.check import check_positive, cloud_sizes, geometry_dtype
from pointcluster.geometry.fps import anchor_numbers, sample, voxels
from pointcluster.ops.launch import outside_transforms
from pointcluster.ops.search.clouds import cloud_index, starts_of, take
from pointcluster.ops.search.threads import threads_for_searches

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


@outside_transforms
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
    grouping = ops.knn(pos, pos[anchor], k, sizes, counts, backend=backend)
    return gathered_anchors(pos, pos[anchor], anchor, grouping, sizes, counts)


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
