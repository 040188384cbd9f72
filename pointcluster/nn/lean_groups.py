"""Context clusters and MLPs over groups of points, some groups at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pointcluster.nn.lifted import norm

ELEMENTS, ELEMENTS_OF_DEVICE = 1 << 20, 1 << 26
"""Features at a time: on a CPU so few that they stay in its cache, elsewhere many."""


class Block(NamedTuple):
    """The parameters of a context cluster of one head and one centre, and of the MLP after it."""

    to_f: Tensor
    f_bias: Tensor
    to_v: Tensor
    v_bias: Tensor
    to_out: Tensor
    out_bias: Tensor
    alpha: Tensor
    beta: Tensor
    w1: Tensor
    gamma1: Tensor
    shift1: Tensor
    w2: Tensor
    gamma2: Tensor
    shift2: Tensor


def one_center(x: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    r"""The context cluster with one centre over each group, and one head.

    All points are the centre's own, so with weights that sum to one

    $$ h = W_v \frac{\sum_n (1 / k + s_n) x_n}{1 + \sum_n s_n} + b_v, \qquad
       \operatorname{out}_n = s_n W h + b: $$

    a linear map of a mean, for which no point needs its own $v$.

    Shapes:
        - **x:** $(R, k, C)$
        - **output:** the similarities $s$ $(R, k)$, and $W h$ $(R, C)$
    """
    f = F.linear(x, block.to_f, block.f_bias)
    c = f.mean(dim=1)  # [R, c]
    cos = torch.bmm(f, c[:, :, None]).squeeze(2) / (norm(f) * norm(c)[:, None])
    s = torch.sigmoid(block.beta + block.alpha * cos)  # [R, k]
    mean = torch.bmm((s + 1 / x.size(1))[:, None], x).squeeze(1) / (1 + s.sum(dim=1, keepdim=True))
    return s, F.linear(F.linear(mean, block.to_v, block.v_bias), block.to_out)


class Affine(NamedTuple):
    """A batch normalisation as a scale and a shift of every channel."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    rstd: Tensor

    @classmethod
    def of(cls, mean: Tensor, var: Tensor, gamma: Tensor, shift: Tensor, eps: float) -> Affine:
        """From the statistics and the parameters."""
        rstd = (var + eps).rsqrt()
        return cls(gamma * rstd, shift - mean * gamma * rstd, mean, rstd)


def chunks(groups: int, width: int, device: torch.device) -> Iterator[slice]:
    """Groups some at a time, for groups of `width` features."""
    most = ELEMENTS if device.type == "cpu" else ELEMENTS_OF_DEVICE
    parts = max(1, -(-groups * width // most))
    step = max(1, -(-groups // parts))
    for start in range(0, groups, step):
        yield slice(start, min(groups, start + step))


def infer_groups(
    u: Tensor,
    a: Tensor,
    index: Tensor,
    first: Affine,
    blocks: Sequence[Block],
    affines: Sequence[tuple[Affine, Affine]],
    *,
    similarity_of: int | None = None,
) -> Tensor:
    r"""All of :class:`LeanGroups` for known statistics and without gradients.

    The statistics go into the linear maps.

    Returns:
        The maximum over each group $(R, C)$; or a block's similarities $(R, k)$, if asked for.
    """
    u, a = u * first.scale, torch.addcmul(first.shift, a, first.scale)
    groups, k = index.shape
    out = u.new_empty(groups, u.size(1) if similarity_of is None else k)
    folded = []
    for block, (norm1, norm2) in zip(blocks, affines, strict=True):
        w1 = block.w1 * norm1.scale[:, None]
        b1 = norm1.shift + w1 @ block.out_bias
        folded.append(
            (block, w1, b1, block.w2 * norm2.scale[:, None], block.out_bias + norm2.shift)
        )
    for g in chunks(groups, k * u.size(1), u.device):
        x = _gathered(u, a, index, g).relu_()
        for number, (block, w1, b1, w2, bias) in enumerate(folded):
            s, p = one_center(x, block)
            if number == similarity_of:
                out[g] = s
                break
            x.addcmul_(s[:, :, None], p[:, None])
            rows = x.flatten(0, 1)
            hidden = torch.addmm(b1, rows, w1.t()).relu_()
            rows.addmm_(hidden, w2.t()).add_(bias).relu_()
        else:
            torch.amax(x, dim=1, out=out[g])
    return out


def _gathered(u: Tensor, a: Tensor, index: Tensor, g: slice) -> Tensor:
    """What the points of some groups begin with, $u_n + a_m$. [R, k, C]"""
    part = index[g]
    rows = u.index_select(0, part.reshape(-1)).view(*part.shape, u.size(1))
    return rows.add_(a[g, None])


class LeanGroups(torch.autograd.Function):
    r"""What each anchor learns from its group, without a tensor of all groups that is not needed.

    $$ x_{mj} = \operatorname{relu}(\operatorname{norm}(u_{n_j} + a_m)), \qquad
       x \leftarrow \operatorname{mlp}(x + \operatorname{cluster}(x)) \text{ for each block},
       \qquad y_m = \max_j x_{mj} $$

    Batch normalisation needs its statistics over all groups before any of them can go on, so the
    groups pass some at a time, from one normalisation to the next. Kept is what each linear map of
    the MLPs gives, and nothing else of that size: a group's features follow from it.

    Arguments are `u` (N, C), `a` (R, C), `index` (R, k), eps, the statistics to normalise by (means
    and variances, one a normalisation) or `None` for the batch's own, the first normalisation's
    parameters and each :class:`Block`'s. Gives the maxima (R, C), then means and variances.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        a: Tensor,
        index: Tensor,
        eps: float,
        known: Sequence[tuple[Tensor, Tensor]] | None,
        gamma: Tensor,
        shift: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        fields = len(Block._fields)
        blocks = [Block(*parameters[i : i + fields]) for i in range(0, len(parameters), fields)]
        state = _State(u, a, index, blocks)
        own = known is None
        stats: list[tuple[Tensor, Tensor]] = [] if known is None else list(known)
        if own:
            moments = _Moments(u.size(1), u)
            for g in state.chunks():
                moments.add(_gathered(u, a, index, g).flatten(0, 1))
            stats.append(moments.result())
        state.start(Affine.of(*stats[0], gamma, shift, eps))
        for number, block in enumerate(blocks):
            state.s.append(u.new_empty(index.shape))
            state.p.append(u.new_empty(a.shape))
            hidden = [u.new_empty(*index.shape, len(w)) for w in (block.w1, block.w2)]
            state.z.append((hidden[0], hidden[1]))
            moments = _Moments(len(block.w1), u)
            for g in state.chunks():
                x = state.input(number, g)
                state.s[-1][g], state.p[-1][g] = one_center(x, block)
                y = state.clustered(x, number, g, block.out_bias).flatten(0, 1)
                z = torch.mm(y, block.w1.t(), out=hidden[0][g].flatten(0, 1))
                if own:
                    moments.add(z)
            if own:
                stats.append(moments.result())
            norm1 = Affine.of(*stats[2 * number + 1], block.gamma1, block.shift1, eps)
            moments = _Moments(len(block.w2), u)
            for g in state.chunks():
                z = hidden[0][g].flatten(0, 1)
                h = torch.addcmul(norm1.shift, z, norm1.scale).relu_()
                z = torch.mm(h, block.w2.t(), out=hidden[1][g].flatten(0, 1))
                if own:
                    moments.add(z)
            if own:
                stats.append(moments.result())
            norm2 = Affine.of(*stats[2 * number + 2], block.gamma2, block.shift2, eps)
            state.norms.append((norm1, norm2))
        out, which = torch.empty_like(a), torch.empty_like(a, dtype=torch.int16)
        for g in state.chunks():
            best = state.input(len(blocks), g).max(dim=1)
            out[g], which[g] = best
        ctx.own, ctx.eps = own, eps
        kept = [each for pair in (*state.z, *stats) for each in pair]
        ctx.save_for_backward(
            u, a, index, gamma, shift, *parameters, out, which, *state.s, *state.p, *kept
        )
        flat = [each for pair in stats for each in pair]
        ctx.mark_non_differentiable(*flat)
        return (out, *flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "groups of points have no second derivatives: differentiate without create_graph"
            )
        u, a, index, gamma, shift, *rest = ctx.saved_tensors
        fields = len(Block._fields)
        count = (len(rest) - 4) // (fields + 8)  # out, which, two statistics; 8 tensors a block
        blocks = [Block(*rest[i * fields : (i + 1) * fields]) for i in range(count)]
        out, which, *rest = rest[count * fields :]
        state = _State(u, a, index, blocks)
        state.s, state.p, rest = rest[:count], rest[count : 2 * count], rest[2 * count :]
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        state.z, stats = pairs[:count], pairs[count:]
        affine = Affine.of(*stats[0], gamma, shift, ctx.eps)
        state.start(affine)
        for i, block in enumerate(blocks):
            norm1 = Affine.of(*stats[2 * i + 1], block.gamma1, block.shift1, ctx.eps)
            norm2 = Affine.of(*stats[2 * i + 2], block.gamma2, block.shift2, ctx.eps)
            state.norms.append((norm1, norm2))
        top = _Top(grad * (out > 0), which.long(), index.size(1))
        slope: Any = top
        back = _NormBack(state.norms[-1][1], ctx.own, index.numel())
        back.add(top.grad, top.chosen(state.z[-1][1]))
        found: list[tuple[Tensor, ...]] = []
        for i in reversed(range(count)):
            slope, back, gradients = _block_back(state, i, slope, back, affine, ctx.own)
            found = [gradients, *found]
        to_gamma, to_shift = back.parameters()
        to_a = torch.empty_like(a)
        for g in state.chunks():
            rows = _gathered(u, a, index, g)
            slope[g] = back.input(slope[g], rows)
            torch.sum(slope[g], dim=1, out=to_a[g])
        to_u = sum_by(index.reshape(-1), slope.flatten(0, 1), len(u))
        flat = [each for block in found for each in block]
        return (to_u, to_a, None, None, None, to_gamma, to_shift, *flat)


def sum_by(index: Tensor, rows: Tensor, size: int, row: Tensor | None = None) -> Tensor:
    """Sum rows of the same index: what a gather is going back.

    As sums over sorted bags; adding row by row takes many times as long on a CPU.

    Args:
        index: Where each row goes.
        rows: The rows.
        size: Number of sums.
        row: Which row goes there, if not one after another.
    """
    order = index.argsort(stable=True)
    offsets = F.pad(torch.bincount(index, minlength=size).cumsum(0), (1, 0))[:-1]
    order = order if row is None else row[order]
    return F.embedding_bag(order, rows, offsets, mode="sum")


class _State:
    """What has been worked out: enough for the features of any groups anywhere on their way."""

    def __init__(self, u: Tensor, a: Tensor, index: Tensor, blocks: Sequence[Block]) -> None:
        self.u, self.a, self.index, self.blocks = u, a, index, blocks
        self.s: list[Tensor] = []
        self.p: list[Tensor] = []
        self.z: list[tuple[Tensor, Tensor]] = []
        self.norms: list[tuple[Affine, Affine]] = []

    def chunks(self) -> Iterator[slice]:
        return chunks(len(self.index), self.index.size(1) * self.u.size(1), self.u.device)

    def start(self, affine: Affine) -> None:
        """Normalise points and anchors instead of their sums."""
        self.normed = (
            self.u * affine.scale,
            torch.addcmul(affine.shift, self.a, affine.scale),
        )

    def input(self, number: int, g: slice) -> Tensor:
        """What goes into a block; after the last, what comes out. [R, k, C]"""
        if number == 0:
            return _gathered(*self.normed, self.index, g).relu_()
        before, norm2 = number - 1, self.norms[number - 1][1]
        y = self.input(before, g)
        self.clustered(y, before, g, self.blocks[before].out_bias + norm2.shift)
        return y.addcmul_(self.z[before][1][g], norm2.scale).relu_()

    def clustered(self, x: Tensor, number: int, g: slice, bias: Tensor) -> Tensor:
        """Add what the context cluster gives, in place."""
        return x.addcmul_(self.s[number][g, :, None], self.p[number][g, None]).add_(bias)


class _Top:
    """The gradient of a maximum: nothing but for the greatest."""

    def __init__(self, grad: Tensor, which: Tensor, k: int) -> None:
        self.grad, self.which, self.k = grad, which, k

    def __getitem__(self, g: slice) -> Tensor:
        grad = self.grad[g]
        dense = grad.new_zeros(len(grad), self.k, grad.size(1))
        return dense.scatter_(1, self.which[g, None], grad[:, None])

    def chosen(self, x: Tensor) -> Tensor:
        return x.gather(1, self.which[:, None]).squeeze(1)


def _block_back(
    state: _State, number: int, slope: Any, back: _NormBack, first: Affine, own: bool
) -> tuple[Tensor, _NormBack, tuple[Tensor, ...]]:
    """Take the gradient of a block's sum before its last relu to that of the block before."""
    block, (norm1, _) = state.blocks[number], state.norms[number]
    z1, z2 = state.z[number]
    to_w1, to_w2 = torch.zeros_like(block.w1), torch.zeros_like(block.w2)
    gamma2, shift2 = back.parameters()
    hidden, back1 = torch.empty_like(z1), _NormBack(norm1, own, state.index.numel())
    for g in state.chunks():
        d = back.input(slope[g], z2[g]).flatten(0, 1)
        z, out = z1[g].flatten(0, 1), hidden[g].flatten(0, 1)
        h = torch.addcmul(norm1.shift, z, norm1.scale).relu_()
        to_w2.addmm_(d.t(), h)
        torch.mm(d, block.w2, out=out)
        torch.ops.aten.threshold_backward.grad_input(out, h, 0, grad_input=out)
        back1.add(out, z)
    gamma1, shift1 = back1.parameters()
    affine = state.norms[number - 1][1] if number else first
    below = _NormBack(affine, own, state.index.numel())
    result = torch.empty_like(z2) if isinstance(slope, _Top) else slope
    leaves = [each.detach().requires_grad_() for each in block[:8]]
    sums = [torch.zeros_like(each) for each in leaves]
    for g in state.chunks():
        x = state.input(number, g)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            s, p = one_center(leaf, Block(*[*leaves, *block[8:]]))
        y = torch.addcmul(x, s.detach()[:, :, None], p.detach()[:, None]).add_(block.out_bias)
        d = back1.input(hidden[g], z1[g]).flatten(0, 1)
        to_w1.addmm_(d.t(), y.flatten(0, 1))
        d = torch.addmm(slope[g].flatten(0, 1), d, block.w1).view_as(x)
        sums[5] += d.sum(dim=(0, 1))
        to_s = torch.bmm(d, p.detach()[:, :, None]).squeeze(2)
        to_p = torch.bmm(s.detach()[:, None], d).squeeze(1)
        wanted = [leaf, *leaves[:5], *leaves[6:]]
        to_x, *more = torch.autograd.grad((s, p), wanted, (to_s, to_p))
        for total, each in zip([*sums[:5], *sums[6:]], more, strict=True):
            total += each
        d += to_x
        torch.ops.aten.threshold_backward.grad_input(d, x, 0, grad_input=d)
        before = (
            state.z[number - 1][1][g] if number else _gathered(state.u, state.a, state.index, g)
        )
        below.add(d.flatten(0, 1), before.flatten(0, 1))
        result[g] = d
    return result, below, (*sums, to_w1, gamma1, shift1, to_w2, gamma2, shift2)


class _Moments:
    """Mean and variance of rows that come some at a time, about where the first ones lie."""

    def __init__(self, channels: int, like: Tensor) -> None:
        self.pivot: Tensor | None = None
        self.count = 0
        self.first, self.second = torch.zeros(2, channels, dtype=torch.float64, device=like.device)
        self.dtype = like.dtype

    def add(self, rows: Tensor) -> None:
        ones = rows.new_ones(1, len(rows))  # a product with ones: far faster than a sum of rows
        if self.pivot is None:
            self.pivot = (ones @ rows).squeeze(0) / len(rows)
        rows = rows - self.pivot
        self.count += len(rows)
        self.first += (ones @ rows).squeeze(0)
        self.second += (ones @ rows.square_()).squeeze(0)

    def result(self) -> tuple[Tensor, Tensor]:
        pivot = 0 if self.pivot is None else self.pivot
        mean = self.first / self.count
        var = (self.second / self.count - mean.square()).clamp_min(0)
        return (pivot + mean).to(self.dtype), var.to(self.dtype)


class _NormBack:
    """A batch normalisation going back: sums over all rows first, then row by row."""

    def __init__(self, affine: Affine, own: bool, count: int) -> None:
        self.affine, self.own, self.count = affine, own, count
        size = affine.scale.shape
        device = affine.scale.device
        self.first, self.second = torch.zeros(2, *size, dtype=torch.float64, device=device)

    def add(self, grad: Tensor, z: Tensor) -> None:
        """Gradients of some of what came out, and what had gone in."""
        ones = grad.new_ones(1, len(grad))
        self.first += (ones @ grad).squeeze(0)
        self.second += (ones @ (z - self.affine.mean).mul_(grad)).squeeze(0)

    def parameters(self) -> tuple[Tensor, Tensor]:
        """The gradients of scale and shift."""
        scale, _, _, rstd = self.affine
        return (self.second * rstd).to(scale.dtype), self.first.to(scale.dtype)

    def input(self, grad: Tensor, z: Tensor) -> Tensor:
        """The gradient of what had gone in."""
        scale, _, mean, rstd = self.affine
        if not self.own:
            return grad * scale
        slope = -(scale * rstd.square() * self.second / self.count)
        constant = -(scale * self.first / self.count) - slope * mean
        return torch.addcmul(constant.to(grad.dtype), grad, scale).addcmul_(z, slope.to(grad.dtype))
