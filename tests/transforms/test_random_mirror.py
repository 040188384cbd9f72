from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import RandomMirror


def test_mirrors_positions_and_normals_or_leaves_both():
    pos, normal = torch.randn(9, 3), torch.randn(9, 3)
    sign = torch.tensor([1.0, -1.0, 1.0])
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        data = RandomMirror(1)(Data(pos=pos, normal=normal))
        mirrored = torch.equal(data.pos, pos * sign)
        assert mirrored or torch.equal(data.pos, pos)
        assert torch.equal(data.normal, normal * sign if mirrored else normal)
        seen.add(mirrored)
    assert seen == {True, False}


def test_probabilities():
    pos = torch.randn(4, 3)
    assert torch.equal(RandomMirror(p=0)(Data(pos=pos)).pos, pos)
    assert torch.equal(RandomMirror(p=1)(Data(pos=pos)).pos[:, 0], -pos[:, 0])


@pytest.mark.parametrize("options", [{"axis": 3}, {"p": 1.5}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="expected"):
        RandomMirror(**options)
