"""The context cluster, written to be read. Every backend gives this answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from pointcluster.ops.context_cluster.weights import Weights
from pointcluster.ops.precision import at_least_float32, length
from pointcluster.ops.regions import Regions


def context_cluster(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pointcluster.ops.context_cluster`."""
    shape = (len(x), 2, heads, w.out.size(1) // heads)
    f, v = F.linear(x, w.fv, w.fv_bias).view(shape).unbind(1)  # [N, H, c]
    y, index, s = gather_around(f, v, regions, w.alpha, w.beta)
    y = F.linear(y.flatten(1), w.out, w.out_bias)
    return y if residual is None else residual + y, index, s


def gather_around(
    f: Tensor, v: Tensor, regions: Regions, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The four steps, between the linear maps: from f and v to y, [N, H, c] all three."""
    n, heads, _ = f.shape
    m, of, first = regions.num_centers, regions.region(n), regions.starts(n)[:-1]

    # propose: a centre is the mean of its k points
    near, counts = regions.group + first[:, None, None], regions.counting(f.dtype)
    weight = counts / counts.sum(dim=2, keepdim=True)
    weight = weight.expand(len(first), -1, -1)
    c, g = (torch.einsum("rmk,rmkhc->rmhc", weight, t[near]) for t in (f, v))  # [R, M, H, c]

    # assign: every point to the most similar centre of its region
    f, c = at_least_float32(f), at_least_float32(c)
    cos = (f[:, None] * c[of]).sum(-1) / (length(f)[:, None] * length(c)[of])  # [N, M, H]
    score = beta + alpha * cos
    if regions.closed is not None:
        closed = regions.closed.expand(len(first), -1)
        score = score.masked_fill(closed[of, :, None], -torch.inf)
    score, index = score.max(dim=1)  # [N, H]
    s = score.sigmoid()

    # aggregate: a cluster is its centre and the weighted sum of its points
    slot = (of[:, None] * m + index) * heads + torch.arange(heads, device=f.device)
    weighted = (s.to(v.dtype)[..., None] * v).flatten(0, 1)
    total = scatter(weighted, slot.flatten(), dim_size=len(first) * m * heads)
    mass = scatter(s.to(v.dtype).flatten(), slot.flatten(), dim_size=len(total))
    h = (g.flatten(0, 2) + total) / (1 + mass)[:, None]  # [R * M * H, c]

    # dispatch: back to the points, by the same similarity
    return s.to(v.dtype)[..., None] * h[slot], index, s
