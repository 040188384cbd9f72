"""A classifier as a Lightning module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from pointcluster.training.mean_class_accuracy import MeanClassAccuracy
from pointcluster.training.run_folder import DivergedError, RunError
from pointcluster.training.schedule import cosine_with_warmup, decay_groups
from pointcluster.training.seeding import mix


class Classifier(lightning.LightningModule):
    """Trains a network of clouds with cross entropy, AdamW and a cosine schedule.

    Args:
        model: ``model(batch)`` gives logits ``[B, len(classes)]``; ``model.config`` describes it.
        classes: Names of the classes.
        lr: Highest learning rate.
        weight_decay: Of matrices; biases and scales do not decay.
        label_smoothing: Part of the target that is spread over all classes.
        warmup: Part of all steps in which the learning rate rises.
        seed: Of dropout and stochastic depth. They are drawn from the seed and the number of the
            step, so that a resumed run draws what the uninterrupted one would.
        preprocessing: What is done with a scan before it is one of these clouds, as
            :func:`pointcluster.models.save_model` explains it; kept in checkpoints.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.1,
        warmup: float = 0.1,
        seed: int = 0,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = dict(preprocessing) if preprocessing else None
        self.classes = list(classes)
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.label_smoothing, self.seed = label_smoothing, seed
        number = len(self.classes)
        accuracy = MetricCollection({**self.accuracies(number)})
        self.train_metrics = accuracy.clone(prefix="train_")
        self.val_metrics = accuracy.clone(prefix="val_")
        self.test_metrics = accuracy.clone(prefix="test_")
        self.train_mean_loss, self.val_mean_loss = MeanMetric(), MeanMetric()
        self.test_mean_loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(number)
        self.test_confusion: Tensor | None = None  # [true, predicted] counts, after a test

    def accuracies(self, number: int) -> dict[str, Metric]:
        """What is measured on every split, for so many classes."""
        return {
            "accuracy": MulticlassAccuracy(number, average="micro"),
            "mean_class_accuracy": MeanClassAccuracy(number),
        }

    def unpack(self, batch: Any) -> tuple[Any, Tensor]:
        """What the network takes, and the class of each item."""
        return batch, batch.y

    def evaluated(self) -> nn.Module:
        """The network that is validated, tested and saved."""
        return self.model

    def forward(self, inputs: Any) -> Tensor:
        return self.model(inputs)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(mix(self.seed, self.global_step, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, y = self.unpack(batch)
        logits = self.model(inputs).float()
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        self.train_metrics(logits, y)
        self._log("train", loss, len(y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, y = self.unpack(batch)
        logits = self.evaluated()(inputs).float()
        self.val_metrics(logits, y)
        self._log("val", F.cross_entropy(logits, y), len(y))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        inputs, y = self.unpack(batch)
        logits = self.evaluated()(inputs).float()
        self.test_metrics(logits, y)
        self.confusion(logits, y)
        self._log("test", F.cross_entropy(logits, y), len(y))

    def on_test_epoch_end(self) -> None:
        self.test_confusion = self.confusion.compute().cpu()  # over all processes
        self.confusion.reset()

    def _log(self, split: str, loss: Tensor, size: int) -> None:
        self._log_loss(split, loss, size)
        metrics = getattr(self, f"{split}_metrics")
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=size)

    def _log_loss(self, split: str, loss: Tensor, size: int) -> None:
        if not loss.isfinite():
            when = "" if split == "test" else f" in epoch {self.current_epoch + 1}"
            raise DivergedError(
                f"the {split} loss is {loss.item():g}{when}: training has diverged, or the data "
                "hold such numbers; try a lower learning rate (--lr)"
            )
        # Not the number: Lightning's mean over processes rounds their average share of the items.
        mean = getattr(self, f"{split}_mean_loss")
        mean(loss.detach(), weight=size)
        self.log(f"{split}_loss", mean, on_step=False, on_epoch=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(decay_groups(self.model, self.weight_decay), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = cosine_with_warmup(optimizer, steps, round(self.warmup * steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        noted = {"preprocessing": self.preprocessing} if self.preprocessing else {}
        checkpoint["network"] = self._network() | noted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint.get("network")
        expected = self._network()
        if isinstance(found, Mapping):  # how scans were prepared is told, and decides nothing
            found = {key: value for key, value in found.items() if key != "preprocessing"}
        if found != expected:
            raise RunError(
                f"the checkpoint is of another network or data set: it holds {found}, "
                f"this run has {expected}"
            )

    def _network(self) -> dict[str, Any]:
        config: Any = self.model.config
        return {"config": dict(config), "classes": self.classes}
