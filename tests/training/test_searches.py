from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model
from pointcluster.training import searching_collate


@pytest.mark.parametrize(
    ("geometry", "workers", "loader"),
    [("auto", 0, False), ("auto", 2, True), ("step", 2, False), ("loader", 0, True)],
)
def test_who_searches(geometry, workers, loader):
    model = create_model("point_coc_tiny", num_classes=3)
    collate = searching_collate(model, geometry, workers)
    assert (collate is not None) == loader
    if collate is not None:
        batch = collate([Data(pos=torch.rand(9, 3)), Data(pos=torch.rand(5, 3))])
        assert batch.num_graphs == 2 and "hierarchy" in batch


def test_an_unknown_word():
    with pytest.raises(ValueError, match="geometry is 'both', expected 'auto', 'loader' or"):
        searching_collate(None, "both", 0)
