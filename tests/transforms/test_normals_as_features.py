from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.transforms import NormalsAsFeatures


def test_appends_normals():
    normal = torch.rand(4, 3)
    data = Data(pos=torch.rand(4, 3), normal=normal)
    assert torch.equal(NormalsAsFeatures()(data).x, normal)
    data.x = torch.ones(4, 2)
    x = NormalsAsFeatures()(data).x
    assert torch.equal(x, torch.cat([torch.ones(4, 2), normal], dim=1))


def test_without_normals():
    with pytest.raises(ValueError, match="no attribute 'normal'"):
        NormalsAsFeatures()(Data(pos=torch.rand(4, 3)))
