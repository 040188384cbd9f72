"""What happens after every epoch: a line and a row, a checkpoint, a test, a picture of a film."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor
from torch_geometric.data import Data
from torchmetrics import MetricCollection

from pointcluster.models.results import PointClusters
from pointcluster.training.run import write_table
from pointcluster.viz import make_scenes, write_films

LINE = {"train": "train_accuracy", "validation": "val_accuracy", "top-5": "val_top5_accuracy"}
"""What a printed line says of the shares that are measured."""


class Table(Callback):
    """One row an epoch, as a CSV file and as part of the checkpoint.

    Lightning's CSVLogger deletes the earlier rows when a run is resumed, and spreads an epoch over
    several.

    Args:
        path: The CSV file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def add(self, trainer: Trainer, measured: Mapping[str, Any]) -> dict[str, float]:
        """Add the row of the epoch that ends, and write all of them in the first process."""
        row = {"epoch": float(trainer.current_epoch + 1)}
        row |= {name: float(value) for name, value in measured.items()}
        self.rows.append(row)
        if trainer.is_global_zero:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            lines = ([row.get(name, "") for name in names] for row in self.rows)
            write_table(self.path, [names, *lines])
        return row

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class EpochTable(Table):
    """What was measured in every epoch, which is printed as well.

    Args:
        path: The CSV file.
        title: What stands before a printed row, such as the data set's name.
        say: Prints a row.
    """

    def __init__(
        self, path: Path, *, title: str = "", say: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(path)
        self.title, self.say = title, say
        self.started, self.lr = 0.0, 0.0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.lr = float(optimizer.param_groups[0]["lr"])  # the schedule goes on right after

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        # Lightning keeps an earlier validation's measures until the next one.
        stale = epoch % (trainer.check_val_every_n_epoch or 1) != 0
        measured = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if not (stale and name.startswith("val_"))
        }
        seconds = time.perf_counter() - self.started
        row = self.add(trainer, measured | {"lr": self.lr, "seconds": seconds})
        if trainer.is_global_zero:
            shares = [f"{title} {row[name]:6.1%}" for title, name in LINE.items() if name in row]
            line = "  ".join([f"loss {row['train_loss']:.3f}", *shares, f"{seconds:.1f} s"])
            line = f"{self.title}epoch {epoch:3d}/{trainer.max_epochs}  {line}"
            (self.say or module.print)(line)
            sys.stdout.flush()


class LastCheckpoint(Checkpoint):
    """Saves the state of the run at the end of every epoch, over the state before.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class TestEachEpoch(Table):
    """Tests after every epoch, to say which epoch would have looked best on the test set.

    That is no result: it is picked by what it is measured on. Many published figures are such ones,
    so a run may give it, labelled as what it is, next to its own. Training is not touched by it.

    Args:
        path: The CSV file, one row an epoch.
    """

    LABEL = "best test epoch, picked on the test set: not a result"
    __test__ = False  # pytest would take it for a class of tests

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        classifier: Any = module
        measures = classifier.measures(len(classifier.classes))
        metrics = MetricCollection(measures, prefix="test_").to(module.device)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        modes = {part: part.training for part in module.modules()}
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in data.test_dataloader():
                inputs, y = classifier.unpack(trainer.strategy.batch_to_device(batch))
                metrics.update(classifier.evaluated()(inputs).float(), y)
        for part, mode in modes.items():
            part.training = mode
        self.add(trainer, metrics.compute())

    def best(self) -> dict[str, Any]:
        """The epoch with the highest accuracy, the first of several, under its label."""
        row = max(self.rows, key=lambda row: row["test_accuracy"])
        return {"label": self.LABEL, **row, "epoch": int(row["epoch"])}


class ClusterFilm(Callback):
    """Keeps the clusters of a few clouds or pictures after every epoch, and writes them as a film.

    Training is not touched: the network is asked in evaluation mode, and nothing random is drawn.
    What was kept is part of the checkpoint, so that a resumed run writes the whole film.

    Args:
        path: The film, .gif or .mp4.
        items: Clouds or pictures, as the network takes them, one each.
        stage: Whose clusters, as are `block` and `head`; negative ones count from the end.
        block: Which block of the stage.
        head: Which head of the block.
        titles: What stands above each.
        every: Epochs from one picture to the next; the last epoch is always shown.
        fps: Pictures a second.
        look: Further keywords of :func:`pointcluster.viz.draw`.

    Raises:
        ValueError: There are no items, another number of titles, or the file is of another kind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        items: Sequence[Tensor | Data],
        *,
        stage: int = -1,
        block: int = -1,
        head: int = 0,
        titles: Sequence[str] | None = None,
        every: int = 1,
        fps: float = 4,
        **look: Any,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in (".gif", ".mp4"):
            raise ValueError(f"{path}: a film is written as .gif or .mp4")
        self.titles = [""] * len(items) if titles is None else list(titles)
        if not items or len(items) != len(self.titles):
            raise ValueError(
                f"{len(items)} items and {len(self.titles)} titles, expected the same number, at "
                "least one"
            )
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1")
        self.items = list(items)
        self.where = {"stage": stage, "block": block, "head": head}
        self.every, self.fps, self.look = every, fps, look
        self.epochs: list[int] = []
        self.kept: list[list[dict[str, Tensor]]] = []  # of each epoch, of each item

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.epochs and trainer.is_global_zero:
            self._keep(0, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        wanted = epoch % self.every == 0 or epoch == trainer.max_epochs
        if wanted and trainer.is_global_zero and epoch not in self.epochs:
            self._keep(epoch, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.epochs:
            return
        films = []
        for i, (item, title) in enumerate(zip(self.items, self.titles, strict=True)):
            steps = [
                {f"epoch {epoch}": PointClusters(**kept[i])}
                for epoch, kept in zip(self.epochs, self.kept, strict=True)
            ]
            films.append(make_scenes(item, steps, title=title, **self.look))
        write_films(self.path, films, fps=self.fps)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.kept = list(state_dict["epochs"]), list(state_dict["kept"])

    def _keep(self, epoch: int, module: LightningModule) -> None:
        classifier: Any = module
        network = classifier.evaluated()
        found = []
        with torch.no_grad():
            for item in self.items:
                given = item[None] if isinstance(item, Tensor) and item.dim() == 3 else item
                # A copy: what a network notes on Data stays off the item.
                given = given.clone().to(module.device)
                clusters = network.clusters(given, **self.where)
                found.append({name: _small(value) for name, value in clusters._asdict().items()})
        if self.kept:  # what the geometry tells is the same each time
            for own, first in zip(found, self.kept[0], strict=True):
                own |= {name: first[name] for name in own if name not in ("index", "similarity")}
        self.epochs.append(epoch)
        self.kept.append(found)


def film_of_classes(
    path: Path,
    clouds: Sequence[Data],
    classes: Sequence[str],
    transform: Callable[[Data], Data],
    epochs: int,
) -> ClusterFilm:
    """A short film of the first cloud of each of the first four classes.

    Args:
        path: The film, .gif or .mp4.
        clouds: With their class as ``y``.
        classes: Names of the classes.
        transform: Makes of a cloud what the network takes.
        epochs: Of the training.
    """
    first = {int(cloud.y): i for i, cloud in reversed(list(enumerate(clouds)))}
    labels = sorted(first)[:4]
    items = [transform(clouds[first[label]].clone()) for label in labels]
    titles = [classes[label].replace("_", " ") for label in labels]
    return ClusterFilm(path, items, titles=titles, every=max(1, epochs // 60))


def _small(value: Tensor) -> Tensor:
    """A copy on the CPU; whole numbers in half the memory."""
    value = value.detach().cpu()
    return value.clone() if value.is_floating_point() else value.int()
