"""Farthest and nearest points by compiled extensions on a GPU: what they find, settled by our rule.

The kernels of torch-cluster and pyg-lib round differently on each device and break ties as they
like. What they give is looked through, and worked out again where it is not what the reference
gives. That looking waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster.ops.search import dense
from pointcluster.ops.search.clouds import cloud_index, squared_distance, starts_of, take

MOST_NEIGHBOURS = 100
"""How many neighbours torch-cluster's kernel finds on a GPU."""
PAIRS = 1 << 24
"""How many distances are held at a time where picks are looked through."""


def fps(
    pos: Tensor, sizes: Sequence[int], nums: Sequence[int], start: Tensor, backend: str
) -> Tensor:
    """See :func:`pointcluster.ops.fps`.

    A kernel that strays at one pick takes others from there on. Looking through a sequence that is
    given needs no step after step, so it is fast where the kernels are: on a GPU.
    """
    clouds = [c for c, m in enumerate(nums) if m]
    if not clouds:
        return torch.empty(0, dtype=torch.int64, device=pos.device)
    starts = starts_of(sizes)
    sizes, nums = [sizes[c] for c in clouds], [nums[c] for c in clouds]
    first = start.tolist()
    # The kernels begin at a cloud's first point: exchange it with the one to begin at.
    order = [torch.arange(starts[c], starts[c + 1], device=pos.device) for c in clouds]
    for part, c in zip(order, clouds, strict=True):
        f = first[c]
        part[0], part[f] = part[f].clone(), part[0].clone()
    index = torch.cat(order)
    found = list(index[farthest(pos[index], sizes, nums, backend)].split(nums))
    for i, c in enumerate(clouds):
        points = pos[starts[c] : starts[c + 1]]
        if not is_farthest(points, found[i] - starts[c]):
            again = dense.fps(points, [len(points)], [nums[i]], start[c : c + 1])
            found[i] = again + starts[c]
    return torch.cat(found)


def is_farthest(points: Tensor, picks: Tensor) -> bool:
    """Whether `picks` is the sequence that the rule of :func:`fps` gives after its first entry."""
    if len(picks.unique()) < len(picks):
        return False
    taken = torch.full((len(points),), len(picks), device=picks.device)
    taken[picks] = torch.arange(len(picks), device=picks.device)
    nearest = torch.full_like(points[:, 0], torch.inf)
    block = max(1, PAIRS // len(points))
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


def farthest(pos: Tensor, sizes: Sequence[int], nums: Sequence[int], backend: str) -> Tensor:
    """Picks as a kernel gives them, from each cloud's first point on."""
    # The kernels take a share and round it up: aim at the middle of the step.
    ratio = [(m - 0.5) / n for m, n in zip(nums, sizes, strict=True)]
    if backend == "torch-cluster":
        import torch_cluster

        shares = torch.tensor(ratio, dtype=pos.dtype, device=pos.device)
        batch = cloud_index(sizes, pos.device)
        found: Tensor = torch_cluster.fps(pos, batch, shares, random_start=False)
        return found
    # pyg-lib takes one share for all clouds.
    parts, begin = [], 0
    for n, share in zip(sizes, ratio, strict=True):
        ptr = torch.tensor([0, n], device=pos.device)
        parts.append(torch.ops.pyg.fps(pos[begin : begin + n], ptr, share, False) + begin)
        begin += n
    return torch.cat(parts)


def knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    sizes: Sequence[int],
    query_sizes: Sequence[int],
    backend: str,
) -> Tensor:
    """See :func:`pointcluster.ops.knn`.

    One neighbour more than needed tells whether the last one is sure. Clouds too small to have
    that one are searched by comparing all pairs, and so is everything where a kernel gives up
    (torch-cluster's on a GPU takes so many neighbours, and distances up to a limit).
    """
    if k >= MOST_NEIGHBOURS:
        return dense.knn(pos, query, k, sizes, query_sizes)
    large = [n > k + 1 and m > 0 for n, m in zip(sizes, query_sizes, strict=True)]
    out = torch.empty(query.size(0), k, dtype=torch.int64, device=pos.device)
    sure = torch.zeros(query.size(0), dtype=torch.bool, device=pos.device)
    if any(large):
        keep = torch.tensor(large, device=pos.device)
        cloud = cloud_index(sizes, pos.device)
        query_cloud = cloud_index(query_sizes, pos.device)
        source = keep[cloud].nonzero().view(-1)
        target = keep[query_cloud].nonzero().view(-1)
        points, queries = (pos[source], cloud[source]), (query[target], query_cloud[target])
        found = nearest(*points, *queries, k + 1, len(sizes), backend)
        if len(found) != len(target) * (k + 1):
            return dense.knn(pos, query, k, sizes, query_sizes)
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
        out[rest] = dense.knn(pos, query[rest], k, sizes, counts.tolist())
    return out


def nearest(
    pos: Tensor,
    batch: Tensor,
    query: Tensor,
    query_batch: Tensor,
    k: int,
    batch_size: int,
    backend: str,
) -> Tensor:
    """Neighbours as a kernel gives them, query by query."""
    given = (pos, query, k, batch, query_batch)
    if backend == "torch-cluster":
        import torch_cluster

        found: Tensor = torch_cluster.knn(*given, batch_size=batch_size)
    else:
        import torch_geometric.nn

        found = torch_geometric.nn.knn(*given, batch_size=batch_size)
    return found[1]
