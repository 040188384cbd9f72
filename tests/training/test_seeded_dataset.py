from __future__ import annotations

import torch
from torch_geometric.transforms import RandomJitter

from pointcluster.training.seeded_dataset import SeededDataset


def test_item_depends_on_seed_epoch_and_index_alone(clouds):
    data = SeededDataset(clouds, transform=RandomJitter(0.1), seed=1)
    first = data[0, 3].pos
    torch.rand(9)
    assert torch.equal(data[0, 3].pos, first)
    assert not torch.equal(data[1, 3].pos, first)
    other = SeededDataset(clouds, transform=RandomJitter(0.1), seed=2)
    assert not torch.equal(other[0, 3].pos, first)


def test_some_items(clouds):
    data = SeededDataset(clouds, items=[4, 2])
    assert len(data) == 2
    assert torch.equal(data[0, 1].pos, clouds[2].pos)
