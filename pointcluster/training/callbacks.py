"""What happens at the end of every epoch: a line, a row of the table, a checkpoint."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from pointcluster.files import replacing
from pointcluster.training.mean_class_accuracy import MeanClassAccuracy

# What a printed row says of the shares that are measured.
LINE = {"train": "train_accuracy", "validation": "val_accuracy", "top-5": "val_top5_accuracy"}


class EpochTable(Callback):
    """Keeps one row an epoch, prints it, and writes all of them as CSV.

    Lightning's CSVLogger deletes the earlier rows when a run is resumed, and spreads an epoch over
    several. These rows are part of the checkpoint.

    Args:
        path: The CSV file.
        title: What stands before a printed row, such as the data set's name.
        say: Prints a row.
    """

    def __init__(
        self, path: Path, *, title: str = "", say: Callable[[str], None] | None = None
    ) -> None:
        self.path, self.title, self.say = path, title, say
        self.rows: list[dict[str, float]] = []
        self.started = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        row = {"epoch": float(trainer.current_epoch + 1)}
        # Lightning keeps an earlier validation's measures until the next one.
        stale = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) != 0
        row |= {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not (stale and name.startswith("val_"))
        }
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row["seconds"] = time.perf_counter() - self.started
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        write_rows(self.path, self.rows)
        parts = [f"loss {row['train_loss']:.3f}"]
        for title, name in LINE.items():
            if name in row:
                parts.append(f"{title} {row[name]:6.1%}")
        (self.say or module.print)(
            f"{self.title}epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  "
            + "  ".join(parts)
            + f"  {row['seconds']:.1f} s"
        )
        sys.stdout.flush()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class LastCheckpoint(Checkpoint):
    """Saves the state of the run at the end of every epoch, over the state before.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        trainer.save_checkpoint(self.path)


class TestEachEpoch(Callback):
    """Tests after every epoch, to say which epoch would have looked best on the test set.

    That is no result: it is picked by what it is measured on. Many published figures are such ones,
    so a run may give it, labelled as what it is, next to its own. Training is not touched by it.

    Args:
        path: The CSV file, one row an epoch.
    """

    LABEL = "best test epoch, picked on the test set: not a result"
    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        classifier: Any = module
        number = len(classifier.classes)
        metrics = MetricCollection({
            "test_accuracy": MulticlassAccuracy(number, average="micro"),
            "test_mean_class_accuracy": MeanClassAccuracy(number),
        }).to(module.device)  # fmt: skip
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        modes = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in data.test_dataloader():
                inputs, y = classifier.unpack(trainer.strategy.batch_to_device(batch))
                metrics.update(classifier.evaluated()(inputs).float(), y)
        for part, mode in modes.items():
            part.training = mode
        row = {"epoch": float(trainer.current_epoch + 1)}
        self.rows.append(row | {name: float(value) for name, value in metrics.compute().items()})
        if trainer.is_global_zero:
            write_rows(self.path, self.rows)

    def best(self) -> dict[str, Any]:
        """The epoch with the highest accuracy, the first of several, under its label."""
        row = max(self.rows, key=lambda row: row["test_accuracy"])
        return {"label": self.LABEL, **row, "epoch": int(row["epoch"])}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


def write_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write a table as CSV, beside the old one, and rename."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(rows)
