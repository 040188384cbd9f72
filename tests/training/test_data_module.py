from __future__ import annotations

import pytest
import torch
from torch_geometric.transforms import FixedPoints

from pointcluster.training import PointDataModule
from pointcluster.training.data_module import carve_out


def test_loaders(clouds):
    data = PointDataModule(
        clouds[:20],
        clouds[20:],
        batch_size=8,
        train_transform=FixedPoints(5, replace=False),
    )
    assert [batch.num_graphs for batch in data.train_dataloader()] == [8, 8]
    assert next(iter(data.train_dataloader())).pos.shape == (40, 3)
    test = list(data.test_dataloader())
    assert [batch.num_graphs for batch in test] == [8, 2]
    assert torch.equal(test[1].pos[:24], clouds[28].pos)


def test_fewer_clouds_than_a_batch(clouds):
    data = PointDataModule(clouds[:5], clouds[5:], batch_size=8)
    assert [batch.num_graphs for batch in data.train_dataloader()] == [5]


def test_validation_is_carved_from_training(clouds):
    first = PointDataModule(clouds, clouds, val_fraction=0.2, seed=0)
    second = PointDataModule(clouds, clouds, val_fraction=0.2, seed=1)
    assert first.val.items == second.val.items
    assert sorted(first.train.items + first.val.items) == list(range(30))
    labels = [int(clouds[i].y) for i in first.val.items]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_groups_stay_together():
    labels = [i % 2 for i in range(40)]
    groups = [i // 2 % 2 * 100 + i // 8 for i in range(40)]
    kept, held = carve_out(labels, groups, 0.4)
    assert held
    assert not {groups[i] for i in kept} & {groups[i] for i in held}


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"val_fraction": 1.0}])
def test_bad_options(clouds, options):
    with pytest.raises(ValueError, match="expected"):
        PointDataModule(clouds, clouds, **options)
