from __future__ import annotations

import csv
from types import SimpleNamespace

import torch

from pointcluster.training.callbacks import EpochTable, LastCheckpoint


def end_epoch(table, epoch, *, first=True, **metrics):
    printed = []
    trainer = SimpleNamespace(
        current_epoch=epoch,
        max_epochs=3,
        is_global_zero=first,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}])],
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )
    module = SimpleNamespace(print=printed.append)
    table.on_train_epoch_start(trainer, module)
    table.on_train_epoch_end(trainer, module)
    return printed


def test_a_line_and_a_row(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", title="Shapes ")
    (line,) = end_epoch(table, 0, train_loss=1.5, train_accuracy=0.25, val_accuracy=0.5)
    assert line.startswith("Shapes epoch   1/3  loss 1.500  train  25.0%  validation  50.0%  ")
    with open(tmp_path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["epoch"]), float(row["train_loss"]), float(row["lr"])) == (1, 1.5, 0.5)


def test_rows_go_through_the_checkpoint(tmp_path):
    first = EpochTable(tmp_path / "a.csv")
    end_epoch(first, 0, train_loss=1.5, train_accuracy=0.25)
    second = EpochTable(tmp_path / "b.csv")
    second.load_state_dict(first.state_dict())
    end_epoch(second, 1, train_loss=1.0, train_accuracy=0.5)
    with open(tmp_path / "b.csv", newline="") as file:
        assert [float(row["train_loss"]) for row in csv.DictReader(file)] == [1.5, 1.0]


def test_other_processes_write_nothing(tmp_path):
    table = EpochTable(tmp_path / "a.csv")
    assert end_epoch(table, 0, first=False, train_loss=1.5, train_accuracy=0.25) == []
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_is_saved_at_the_end_of_an_epoch(tmp_path):
    saved = []
    trainer = SimpleNamespace(save_checkpoint=saved.append)
    LastCheckpoint(tmp_path / "last.ckpt").on_train_epoch_end(trainer, None)
    assert saved == [tmp_path / "last.ckpt"]
