"""How clusters change while a network learns, as a film."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz import make_scenes, write_films


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

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not self.epochs and trainer.is_global_zero:
            self._keep(0, module)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        epoch = trainer.current_epoch + 1
        wanted = epoch % self.every == 0 or epoch == trainer.max_epochs
        if wanted and trainer.is_global_zero and epoch not in self.epochs:
            self._keep(epoch, module)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
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

    def _keep(self, epoch: int, module: lightning.LightningModule) -> None:
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


def _small(value: Tensor) -> Tensor:
    """A copy on the CPU; whole numbers in half the memory."""
    value = value.detach().cpu()
    return value.clone() if value.is_floating_point() else value.int()
