"""The context cluster by torch's operations: on any device, in any precision, also compiled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from pointcluster.ops.context_cluster.weights import Weights
from pointcluster.ops.precision import at_least_float32, is_autocast, length, no_autocast
from pointcluster.ops.regions import Regions


def context_cluster(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`pointcluster.ops.context_cluster`."""
    if regions.size is not None and lifting_pays(w, heads, regions.num_centers):
        return _lifted(x, regions, w, heads, residual)
    f, v = F.linear(x, w.fv, w.fv_bias).unflatten(1, (2, heads, w.out.size(1) // heads)).unbind(1)
    y, index, s = gather_around(f, v, regions, w.alpha, w.beta)
    y = F.linear(y.flatten(1), w.out, w.out_bias)
    return y if residual is None else residual + y, index, s


def gather_around(
    f: Tensor, v: Tensor, regions: Regions, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The four steps, between the linear maps: from f and v to y, [N, H, c] all three."""
    around = _segments if regions.size is None else _slices
    return around(f, v, regions, alpha, beta)


def lifting_pays(w: Weights, heads: int, centers: int) -> bool:
    """Whether products with all heads' centres cost less than v and the last map do."""
    out, width = w.out.shape
    return heads * centers * (width + 2 * out) <= 2 * width * out + 3 * width * centers


def _lifted(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Regions of equal size as slices, with the linear maps moved to the centres.

    A mean and a sum over points commute with a linear map, so $v$ and the last map are applied to
    centres, of which there are few, and never to points:

    $$ \begin{aligned}
       c_m \cdot f_n &= (W_f^\top c_m) \cdot x_n + c_m \cdot b_f, \\
       g_m &= W_v \operatorname{mean}_{n \in G(m)} x_n + b_v, \\
       h_m &= \frac{g_m + W_v \sum_{a(n)=m} s_{mn} x_n + b_v \sum_{a(n)=m} s_{mn}}
                   {1 + \sum_{a(n)=m} s_{mn}}, \\
       \operatorname{out}_n &= b + \sum_{\text{heads}} s_{a(n) n}\, W_{\text{head}} h_{a(n)}.
       \end{aligned} $$

    Only $f$ is worked out for each point, as its norm enters the cosine. All heads go through one
    product with a matrix that has $s$ where a point meets its centre, and zeros elsewhere.
    """
    channels, size, m = x.size(1), regions.size, regions.num_centers
    assert size is not None
    x = x.view(-1, size, channels)  # [R, P, C]
    count, width = x.size(0), w.fv.size(0) // 2
    f = F.linear(x, w.fv[:width], w.fv_bias[:width])  # [R, P, W]
    # propose
    mean = torch.bmm(regions.pooling(x.dtype).expand(count, -1, -1), x)  # [R, M, C]
    mean = mean / regions.filled[..., None].to(x.dtype)
    c, g = F.linear(mean, w.fv, w.fv_bias).view(count, m, 2, heads, -1).unbind(2)  # [R, M, H, c]
    # assign
    with no_autocast(x):
        f, wide = at_least_float32(f), at_least_float32(x)
        c = at_least_float32(c).permute(2, 0, 1, 3).flatten(1, 2)  # [H, R * M, c]
        c = c / length(c)[..., None]
        to_f, shift = w.fv[:width].to(c.dtype), w.fv_bias[:width].to(c.dtype)
        back = torch.bmm(c, to_f.view(heads, -1, channels)).view(heads, count, m, channels)
        back = back.transpose(0, 1).reshape(count, -1, channels)  # [R, H * M, C]
        shift = torch.bmm(c, shift.view(heads, -1, 1)).view(heads, count, m).transpose(0, 1)
        cos = torch.bmm(wide, back.mT).view(count, size, heads, m) + shift[:, None]
        cos = cos / length(f.view(count, size, heads, -1))[..., None]  # [R, P, H, M]
        score = w.beta.to(cos.dtype) + w.alpha.to(cos.dtype) * cos
        score = _open(score, regions)
        score, index = score.max(dim=-1)  # [R, P, H]
        s = score.sigmoid()
    # s where a point meets its centre, and a last column of ones for the bias. [R, P, H * M + 1]
    meets = F.pad(x.new_zeros(count, size, heads * m), (0, 1), value=1.0)
    slot = index + torch.arange(heads, device=index.device) * m
    meets = meets.scatter(-1, slot, s.to(x.dtype))
    # aggregate; from here on, heads are the batch: [H, R * M, .]
    to_center = meets[..., :-1]
    total = torch.bmm(to_center.mT, x)  # [R, H * M, C]
    mass = to_center.sum(dim=1).view(count, heads, m, 1)
    total = total.view(count, heads, m, channels).transpose(0, 1).reshape(heads, -1, channels)
    mass, g = mass.transpose(0, 1).reshape(heads, -1, 1), g.permute(2, 0, 1, 3).flatten(1, 2)
    h = g + torch.bmm(total, w.fv[width:].view(heads, -1, channels).mT)
    h = (h + mass * w.fv_bias[width:].view(heads, 1, -1).to(mass.dtype)) / (1 + mass)
    # dispatch
    out = w.out.size(0)
    h = torch.bmm(h, w.out.view(out, heads, -1).permute(1, 2, 0))  # [H, R * M, C']
    h = h.view(heads, count, m, out).transpose(0, 1).reshape(count, -1, out)
    h = torch.cat([h, w.out_bias.to(h.dtype).expand(count, 1, -1)], dim=1).to(meets.dtype)
    if residual is None:
        y = torch.bmm(meets, h)
    elif is_autocast(x):  # which would round what is added to, too
        y = residual.view(count, size, out) + torch.bmm(meets, h)
    else:
        y = torch.baddbmm(residual.view(count, size, out), meets, h)
    return y.flatten(0, 1), index.flatten(0, 1), s.flatten(0, 1)


def _slices(
    f: Tensor, v: Tensor, regions: Regions, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Regions of equal size: each is a slice, each step a batched product."""
    n, heads, c = f.shape
    # One product a region for all heads, then heads first: [R, H, P or M, c]
    fv = torch.stack([f, v], dim=1).view(-1, regions.size or 1, 2 * heads * c)
    count = fv.size(0)
    center = torch.bmm(regions.pooling(fv.dtype).expand(count, -1, -1), fv)
    center = center / regions.filled[..., None].to(fv.dtype)
    f, v = fv.unflatten(2, (2, heads, c)).permute(2, 0, 3, 1, 4).unbind(0)
    middle, g = center.unflatten(2, (2, heads, c)).permute(2, 0, 3, 1, 4).unbind(0)
    with no_autocast(f):
        f, middle = at_least_float32(f), at_least_float32(middle)
        cos = f @ middle.mT / (length(f)[..., None] * length(middle)[..., None, :])  # [R, H, P, M]
        score = beta.to(cos.dtype) + alpha.to(cos.dtype) * cos
        score, index = _open(score, regions).max(dim=-1)  # [R, H, P]
        s = score.sigmoid()
    meets = torch.zeros_like(cos, dtype=v.dtype)
    meets = meets.scatter(-1, index[..., None], s[..., None].to(v.dtype))
    h = (g + meets.mT @ v) / (1 + meets.sum(dim=-2)[..., None])  # [R, H, M, c]
    y = (meets @ h).transpose(1, 2).reshape(n, heads, c)
    return y, *(t.transpose(1, 2).reshape(n, heads) for t in (index, s))


def _segments(
    f: Tensor, v: Tensor, regions: Regions, alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Regions of any size: a scatter and a gather. Nothing has N x M x c numbers."""
    n, heads, channels = f.shape
    m, of, first = regions.num_centers, regions.region(n), regions.starts(n)[:-1]
    fv = torch.stack([f, v], dim=1).flatten(1)  # [N, 2 * W]
    near, weight = regions.group + first[:, None, None], regions.counting(fv.dtype)
    weight = weight / weight.sum(dim=2, keepdim=True)
    center = fv.new_zeros(len(first), m, fv.size(1))
    for slot in range(near.size(2)):  # one neighbour at a time
        center = torch.addcmul(center, weight[..., slot, None], fv[near[..., slot]])
    c, g = center.view(-1, m, 2, heads, channels).unbind(2)  # [R, M, H, c]
    with no_autocast(f):
        f, c = at_least_float32(f), at_least_float32(c)
        c = c / length(c)[..., None]
        cos = torch.stack([(f * c[of, j]).sum(dim=-1) for j in range(m)], dim=-1)  # [N, H, M]
        score = beta.to(cos.dtype) + alpha.to(cos.dtype) * cos / length(f)[..., None]
        if regions.closed is not None:
            score = score.masked_fill(regions.closed.expand(len(c), -1)[of, None], -torch.inf)
        score, index = score.max(dim=-1)  # [N, H]
        s = score.sigmoid()
    head, weight = torch.arange(heads, device=f.device), s.to(v.dtype).reshape(-1, 1)
    where = ((of[:, None] * m + index) * heads + head).flatten()
    slots = len(c) * m * heads
    total = scatter(weight * v.reshape(-1, channels), where, dim_size=slots)
    mass = scatter(weight, where, dim_size=slots)
    h = (g.reshape(slots, channels) + total) / (1 + mass)
    return (weight * h[where]).view(n, heads, channels), index, s


def _open(score: Tensor, regions: Regions) -> Tensor:
    """Let no centre that repeats another take a point; centres are the last axis."""
    if regions.closed is None:
        return score
    return score.masked_fill(regions.closed[:, None, None], -torch.inf)
