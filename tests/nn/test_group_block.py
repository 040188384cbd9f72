from __future__ import annotations

import pytest
import torch

from pointcluster.nn.group_block import Block, one_center


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_center_is_the_operator_with_one_centre(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 6, 8, dtype=dtype)
    shapes = {"to_f": (4, 8), "f_bias": (4,), "to_v": (4, 8), "v_bias": (4,), "to_out": (8, 4),
              "out_bias": (8,), "alpha": (), "beta": ()}  # fmt: skip
    unused = dict.fromkeys(Block._fields[len(shapes) :], torch.zeros(()))
    block = Block(**{k: torch.randn(s, dtype=dtype) for k, s in shapes.items()}, **unused)
    s, p = one_center(x, block)
    for group, found, projected in zip(x, s, p, strict=True):
        f, v = group @ block.to_f.T + block.f_bias, group @ block.to_v.T + block.v_bias
        cos = torch.cosine_similarity(f, f.mean(dim=0)[None], dim=1)
        expected = torch.sigmoid(block.beta + block.alpha * cos)
        h = (v.mean(dim=0) + (expected[:, None] * v).sum(dim=0)) / (1 + expected.sum())
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(projected, block.to_out @ h)
