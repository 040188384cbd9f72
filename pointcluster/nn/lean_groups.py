"""What each anchor learns from its group of points, in training, some groups at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pointcluster.nn.group_block import Block, one_center
from pointcluster.nn.group_norm import Affine, Moments, NormBack
from pointcluster.nn.group_rows import chunks, gathered, sum_by


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
            moments = Moments(u.size(1), u)
            for g in state.chunks():
                moments.add(gathered(u, a, index, g).flatten(0, 1))
            stats.append(moments.result())
        state.start(Affine.of(*stats[0], gamma, shift, eps))
        for number, block in enumerate(blocks):
            state.s.append(u.new_empty(index.shape))
            state.p.append(u.new_empty(a.shape))
            hidden = [u.new_empty(*index.shape, len(w)) for w in (block.w1, block.w2)]
            state.z.append((hidden[0], hidden[1]))
            moments = Moments(len(block.w1), u)
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
            moments = Moments(len(block.w2), u)
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
        back = NormBack(state.norms[-1][1], ctx.own, index.numel())
        back.add(top.grad, top.chosen(state.z[-1][1]))
        found: list[tuple[Tensor, ...]] = []
        for i in reversed(range(count)):
            slope, back, gradients = _block_back(state, i, slope, back, affine, ctx.own)
            found = [gradients, *found]
        to_gamma, to_shift = back.parameters()
        to_a = torch.empty_like(a)
        for g in state.chunks():
            rows = gathered(u, a, index, g)
            slope[g] = back.input(slope[g], rows)
            torch.sum(slope[g], dim=1, out=to_a[g])
        to_u = sum_by(index.reshape(-1), slope.flatten(0, 1), len(u))
        flat = [each for block in found for each in block]
        return (to_u, to_a, None, None, None, to_gamma, to_shift, *flat)


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
            return gathered(*self.normed, self.index, g).relu_()
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
    state: _State, number: int, slope: Any, back: NormBack, first: Affine, own: bool
) -> tuple[Tensor, NormBack, tuple[Tensor, ...]]:
    """Take the gradient of a block's sum before its last relu to that of the block before."""
    block, (norm1, _) = state.blocks[number], state.norms[number]
    z1, z2 = state.z[number]
    to_w1, to_w2 = torch.zeros_like(block.w1), torch.zeros_like(block.w2)
    gamma2, shift2 = back.parameters()
    hidden, back1 = torch.empty_like(z1), NormBack(norm1, own, state.index.numel())
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
    below = NormBack(affine, own, state.index.numel())
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
        before = state.z[number - 1][1][g] if number else gathered(state.u, state.a, state.index, g)
        below.add(d.flatten(0, 1), before.flatten(0, 1))
        result[g] = d
    return result, below, (*sums, to_w1, gamma1, shift1, to_w2, gamma2, shift2)
