from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.transforms import FixedPoints, RandomJitter

from pointcluster.training import PointDataModule, RunError
from pointcluster.training.data_module import carve_out, hold_out


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


def test_every_process_has_a_cloud(clouds):
    data = PointDataModule(clouds[:6], clouds[6:9], val_fraction=0.5)
    shares = []
    for rank in range(3):
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=3,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        shares += [len(batch.y) for batch in data.test_dataloader()]
    assert shares == [1, 1, 1]
    data.trainer.world_size = 4
    with pytest.raises(RunError, match="3 test items for 4 processes, .* use fewer processes"):
        data.test_dataloader()
    data = PointDataModule(clouds[:6], clouds[6:], val_fraction=0.5)
    data.check_shares(3)
    with pytest.raises(RunError, match="3 validation items for 4 processes"):
        data.check_shares(4)


def test_groups_stay_together():
    labels = [i % 2 for i in range(40)]
    groups = [i // 2 % 2 * 100 + i // 8 for i in range(40)]
    kept, held = carve_out(labels, groups, 0.4)
    assert held
    assert not {groups[i] for i in kept} & {groups[i] for i in held}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_makes_a_batch(clouds, workers):
    def collate(items):
        batch = Batch.from_data_list(items)
        batch.total = batch.pos.sum()
        return batch

    options = {"batch_size": 8, "num_workers": workers, "train_transform": RandomJitter(0.1)}
    plain = PointDataModule(clouds[:20], clouds[20:], **options)
    data = PointDataModule(clouds[:20], clouds[20:], collate=collate, **options)
    for loaders in zip(
        (data.train_dataloader(), data.test_dataloader()),
        (plain.train_dataloader(), plain.test_dataloader()),
        strict=True,
    ):
        for batch, same in zip(*loaders, strict=True):
            assert torch.equal(batch.pos, same.pos) and torch.equal(batch.batch, same.batch)
            assert torch.equal(batch.total, same.pos.sum()) and "total" not in same


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"val_fraction": 1.0}])
def test_bad_options(clouds, options):
    with pytest.raises(ValueError, match="expected"):
        PointDataModule(clouds, clouds, **options)


def test_a_part_that_holds_nothing_or_all_of_a_class_is_an_error(clouds):
    with pytest.raises(RunError, match=r"--val-fraction 0\.1 holds none of the 9 training clouds"):
        PointDataModule(clouds[:9], clouds, val_fraction=0.1)
    with pytest.raises(RunError, match=r"--val-fraction 0\.6 leaves no training cloud of class 0, "
                       "of 3 such"):  # fmt: skip
        PointDataModule(clouds[:3], clouds, val_fraction=0.6)
    assert hold_out(clouds[:9], 0.0) == (list(range(9)), [])
