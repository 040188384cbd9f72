"""The context cluster on regions of equal size, with its linear maps moved to the centres."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pointcluster.nn import fused

EPS = 1e-8


def lifted_cluster(
    x: Tensor,
    fv: tuple[Tensor, Tensor],
    proj: tuple[Tensor, Tensor],
    score: tuple[Tensor, Tensor],
    pool: Tensor,
    count: Tensor | None,
    repeats: Tensor | None,
    heads: int,
    onto: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Propose, assign, aggregate and dispatch, all regions at once.

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

    Args:
        x: Features of the points.
        fv: Weight and bias of the map to f and v.
        proj: Weight and bias of the last map.
        score: $\alpha$ and $\beta$.
        pool: What each point counts in a centre's grouping; $R$ or 1 of them.
        count: What to divide by to make it a mean.
        repeats: Centres that take no point.
        heads: Number of heads H.
        onto: What to add the output to; it costs nothing here.

    Shapes:
        - **x**, **onto:** $(R, P, C)$; **pool:** $(R, M, P)$ or $(1, M, P)$; **count:** $(M, 1)$;
          **repeats:** $(R, M)$ or $(1, M)$
        - **output:** $(R, P, C)$, and index and similarity $(R, P, H)$
    """
    given = [each for each in (x, *fv, *proj, *score, onto) if each is not None]
    if fused.serves(*given) and len(x) >= torch.get_num_threads():
        return _Fused.apply(x, *fv, *proj, *score, onto, pool, count, repeats, heads)
    return _lifted(x, fv, proj, score, pool, count, repeats, heads, onto)


def _lifted(
    x: Tensor,
    fv: tuple[Tensor, Tensor],
    proj: tuple[Tensor, Tensor],
    score: tuple[Tensor, Tensor],
    pool: Tensor,
    count: Tensor | None,
    repeats: Tensor | None,
    heads: int,
    onto: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by torch's operations."""
    regions, size, channels = x.shape
    m = pool.size(1)
    weight, bias = fv
    width = weight.size(0) // 2
    f = F.linear(x, weight[:width], bias[:width])  # [R, P, W]
    mean = torch.bmm(pool.to(x.dtype).expand(regions, -1, -1), x)  # [R, M, C]
    if count is not None:
        mean = mean / count.to(x.dtype)
    c, g = F.linear(mean, weight, bias).view(regions, m, 2, heads, -1).unbind(2)  # [R, M, H, c]
    with torch.autocast(x.device.type, enabled=False):
        f, wide = at_least_float32(f), at_least_float32(x)
        c = at_least_float32(c).permute(2, 0, 1, 3).flatten(1, 2)  # [H, R * M, c]
        c = c / norm(c)[..., None]
        to_f, shift = weight[:width].to(c.dtype), bias[:width].to(c.dtype)
        back = torch.bmm(c, to_f.view(heads, -1, channels)).view(heads, regions, m, channels)
        back = back.transpose(0, 1).reshape(regions, -1, channels)  # [R, H * M, C]
        shift = torch.bmm(c, shift.view(heads, -1, 1)).view(heads, regions, m).transpose(0, 1)
        cos = torch.bmm(wide, back.mT).view(regions, size, heads, m) + shift[:, None]
        cos = cos / norm(f.view(regions, size, heads, -1))[..., None]  # [R, P, H, M]
        s = torch.addcmul(score[1].to(cos.dtype), cos, score[0].to(cos.dtype))
        if repeats is not None:
            s = s.masked_fill(repeats[:, None, None], -torch.inf)
        s, index = s.max(dim=-1)  # [R, P, H]
        s = s.sigmoid()
    # s where a point meets its centre, and a last column of ones for the bias. [R, P, H * M + 1]
    own = F.pad(x.new_zeros(regions, size, heads * m), (0, 1), value=1.0)
    slot = index + torch.arange(heads, device=index.device) * m
    own = own.scatter(-1, slot, s.to(x.dtype))
    to_center = own[..., :-1]
    total = torch.bmm(to_center.mT, x)  # [R, H * M, C]
    mass = to_center.sum(dim=1).view(regions, heads, m, 1)
    # From here on, heads are the batch: [H, R * M, .]
    total = total.view(regions, heads, m, channels).transpose(0, 1).reshape(heads, -1, channels)
    mass, g = mass.transpose(0, 1).reshape(heads, -1, 1), g.permute(2, 0, 1, 3).flatten(1, 2)
    to_v = weight[width:].view(heads, -1, channels)
    to_out = proj[0].view(channels, heads, -1).permute(1, 2, 0)  # [H, c, C]
    h = g + torch.bmm(total, to_v.mT) + mass * bias[width:].view(heads, 1, -1).to(mass.dtype)
    h = torch.bmm(h / (1 + mass), to_out)
    h = h.view(heads, regions, m, channels).transpose(0, 1).reshape(regions, -1, channels)
    h = torch.cat([h, proj[1].to(h.dtype).expand(regions, 1, -1)], dim=1).to(own.dtype)
    if onto is None:
        return torch.bmm(own, h), index, s
    if torch.is_autocast_enabled(x.device.type):  # which would round what is added to, too
        return onto + torch.bmm(own, h), index, s
    return torch.baddbmm(onto, own, h), index, s


def _closed(repeats: Tensor, like: Tensor) -> Tensor:
    """What to add to the centres' scores, so that those that repeat others take no point."""
    return like.new_zeros(repeats.shape).masked_fill(repeats, -torch.inf)


class _Fused(torch.autograd.Function):
    """The same where no intermediate result reaches memory; going back it is worked out again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        proj: Tensor,
        last: Tensor,
        alpha: Tensor,
        beta: Tensor,
        onto: Tensor | None,
        pool: Tensor,
        count: Tensor | None,
        repeats: Tensor | None,
        heads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.plan = fused.Plan(
            (weight, bias),
            (proj, last),
            torch.cat([alpha, beta, alpha.new_tensor([EPS])]),
            pool.to(x.dtype).contiguous(),
            None if count is None else count.to(x.dtype).flatten(),
            x.new_zeros(1, pool.size(1)) if repeats is None else _closed(repeats, x),
            heads,
        )
        ctx.repeats = repeats
        y, index, s = fused.cluster(x, ctx.plan, onto)
        ctx.mark_non_differentiable(index, s)
        ctx.save_for_backward(x, weight, bias, proj, last, alpha, beta, index, s)
        return y, index, s

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, proj, last, alpha, beta, index, s = ctx.saved_tensors
        plan = ctx.plan._replace(fv=(weight, bias), proj=(proj, last))
        rest = grad if ctx.needs_input_grad[7] else None, None, None, None, None
        if torch.is_grad_enabled():  # to be differentiated again: by what autograd knows
            inputs, heads = [x, weight, bias, proj, last, alpha, beta], plan.heads
            count = None if plan.divisor is None else plan.divisor[:, None]
            y, _, _ = _lifted(
                x, plan.fv, plan.proj, (alpha, beta), plan.pool, count, ctx.repeats, heads, None
            )
            wanted = [each for each in inputs if each.requires_grad]
            given = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            grads = [next(given) if each.requires_grad else None for each in inputs]
            return *grads, *rest
        return *fused.cluster_backward(x, plan, index, s, grad.contiguous()), *rest


def norm(x: Tensor) -> Tensor:
    """The length of vectors along the last axis, and never zero."""
    return torch.linalg.vector_norm(x, dim=-1).clamp_min(EPS)


def at_least_float32(x: Tensor) -> Tensor:
    """Which centre wins is decided in float32 where features are half as wide."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
