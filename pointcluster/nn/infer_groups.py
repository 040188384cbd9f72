"""What each anchor learns from its group of points, for known statistics and without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointcluster.nn.group_block import Block, one_center
from pointcluster.nn.group_norm import Affine
from pointcluster.nn.group_rows import chunks, gathered


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
    r"""All that :class:`~pointcluster.nn.lean_groups.LeanGroups` does, for known statistics.

    Without gradients; the statistics go into the linear maps.

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
        x = gathered(u, a, index, g).relu_()
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
