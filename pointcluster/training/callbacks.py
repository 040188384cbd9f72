"""What happens at the end of every epoch: a line, a row of the table, a checkpoint."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint

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
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row["seconds"] = time.perf_counter() - self.started
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        self._write()
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

    def _write(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)

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
