"""A context cluster with one centre over each group of points, and the MLP after it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pointcluster.nn.lifted import norm


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
