"""Classifiers as Lightning modules: of clouds or points, and of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from pointcluster._optional import installed_by
from pointcluster.models import save_model
from pointcluster.training.data import mix, seeded
from pointcluster.training.recipe import ImageRecipe, Recipe
from pointcluster.training.run import DivergedError, RunError, is_first_process

SELDOM = 50
"""Steps after which a GPU is waited for, to see whether training has diverged."""


class Classifier(lightning.LightningModule):
    """Trains a network by a recipe, to give the class of an item.

    An item is a row of logits: a cloud, or a point of it. What another task needs is a subclass
    that says how a batch is unpacked, what is measured and, if it is no cross entropy, the loss.

    Args:
        model: ``model(inputs)`` gives logits ``[N, len(classes)]``; ``model.config`` describes it.
        classes: Names of the classes.
        recipe: How to train.
        seed: Of dropout and stochastic depth. They are drawn from the seed and the number of the
            step, so that a resumed run draws what the uninterrupted one would.
        preprocessing: What is done with a scan before it is one of these clouds, as
            :func:`pointcluster.models.save_model` explains it; kept in checkpoints.

    Raises:
        ValueError: The recipe's label smoothing would give the true class nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        recipe: Recipe | None = None,
        seed: int = 0,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.classes, self.seed = model, list(classes), seed
        self.recipe = Recipe() if recipe is None else recipe
        self.preprocessing = dict(preprocessing) if preprocessing else None
        number = len(self.classes)
        self.label_smoothing = self.recipe.smoothing(number)
        metrics = MetricCollection({**self.measures(number)})
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        self.train_mean_loss, self.val_mean_loss = MeanLoss(), MeanLoss()
        self.test_mean_loss = MeanLoss()
        self.confusion = MulticlassConfusionMatrix(number, validate_args=False)
        self.test_confusion: Tensor | None = None  # [true, predicted] counts, after a test

    def measures(self, number: int) -> dict[str, Metric]:
        """What is measured on every split, for so many classes."""
        return {  # to validate arguments, a GPU's would be waited for in every step
            "accuracy": MulticlassAccuracy(number, average="micro", validate_args=False),
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

    def loss(self, logits: Tensor, y: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Of logits and classes, or of the shares of classes that a target has.

        Args:
            logits: Of the network, in float32.
            y: Targets.
            smoothing: Part of the target that is spread over all classes, in training.
        """
        return F.cross_entropy(logits, y, label_smoothing=smoothing)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(mix(*self._keys(batch_idx)))

    def _keys(self, batch_idx: int) -> tuple[int, ...]:
        """What decides the random numbers of a step."""
        steps = self.recipe.accumulate
        return self.seed, self.global_step * steps + batch_idx % steps, self.global_rank

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, y = self.unpack(batch)
        logits = self.model(inputs).float()
        loss = self.loss(logits, y, smoothing=self.label_smoothing)
        self.train_metrics.update(logits, y)
        self._log("train", loss, len(y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.confusion.update(*self._evaluate("test", batch))

    def _evaluate(self, split: str, batch: Any) -> tuple[Tensor, Tensor]:
        inputs, y = self.unpack(batch)
        logits = self.evaluated()(inputs).float()
        getattr(self, f"{split}_metrics").update(logits, y)
        self._log(split, self.loss(logits, y), len(y))
        return logits, y

    def on_train_epoch_end(self) -> None:  # before the checkpoint is written
        self._check_loss("train")

    def on_validation_epoch_end(self) -> None:
        self._check_loss("val")

    def on_test_epoch_end(self) -> None:
        self._check_loss("test")
        self.test_confusion = self.confusion.compute().cpu()  # over all processes
        self.confusion.reset()

    def _log(self, split: str, loss: Tensor, size: int) -> None:
        self._log_loss(split, loss, size)
        metrics = getattr(self, f"{split}_metrics")
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=size)

    def _log_loss(self, split: str, loss: Tensor, size: int) -> None:
        # Not the number: Lightning's mean over processes rounds their average share of the items.
        mean = getattr(self, f"{split}_mean_loss")
        mean.update(loss.detach(), size)
        if loss.device.type == "cpu" or mean.update_count % SELDOM == 0:
            self._check_loss(split)
        self.log(f"{split}_loss", mean, on_step=False, on_epoch=True, batch_size=size)

    def _check_loss(self, split: str) -> None:
        """Whether all losses of the epoch so far are finite; to look at one waits for its step."""
        total = getattr(self, f"{split}_mean_loss").total
        if not total.isfinite():
            when = "" if split == "test" else f" in epoch {self.current_epoch + 1}"
            raise DivergedError(
                f"the {split} loss is {total.item():g}{when}: training has diverged, or the data "
                "hold such numbers; try a lower learning rate (--lr)"
            )

    def highest_rate(self) -> float:
        """The learning rate at the end of the warm-up."""
        return self.recipe.lr

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = recipe.optimizer_of(self.model, self.highest_rate())
        updates = int(self.trainer.estimated_stepping_batches) // recipe.epochs
        schedule = recipe.schedule_of(optimizer, updates if recipe.schedule == "step" else 1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": recipe.schedule},
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

    def save(self, folder: Path, result: dict[str, Any]) -> None:
        """Write the tested network to ``model.safetensors``, in the first process.

        Args:
            folder: Where to; ``model.json`` lies beside it, with the classes, the result, and what
                the network takes.
            result: What was measured.
        """
        if is_first_process():
            network: Any = self.evaluated().cpu().eval()
            save_model(folder / "model", network, self._notes(result))

    def _notes(self, result: dict[str, Any]) -> dict[str, Any]:
        noted = {"preprocessing": self.preprocessing} if self.preprocessing else {}
        return {"classes": self.classes, "result": result, **noted}


class ImageClassifier(Classifier):
    """Trains a network of pictures by a recipe: with timm's mixup, erasing, average of weights.

    Args:
        model: ``model(images)`` gives logits ``[B, len(classes)]``; ``model.config`` describes it.
        classes: Names of the classes.
        recipe: How to train.
        data_config: What the network takes, from :func:`data_config`; it is kept with the weights.
        seed: Of stochastic depth, mixup, CutMix and random erasing. They are drawn from the seed,
            the epoch, the step and the process, so that a resumed run draws what the uninterrupted
            one would.
        say: Is told the learning rate, in the first process.

    Raises:
        ImportError: timm is not installed.
    """

    recipe: ImageRecipe

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        recipe: ImageRecipe,
        data_config: dict[str, Any],
        seed: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(model, classes, recipe=recipe, seed=seed)
        self.data_config, self.say = data_config, say
        with installed_by("image"):
            from timm.data import Mixup
            from timm.data.random_erasing import RandomErasing
            from timm.utils import ModelEmaV3
        self.mixup = self.erasing = self.average = None
        if recipe.mixup or recipe.cutmix:
            smoothing = {"label_smoothing": self.label_smoothing, "num_classes": len(self.classes)}
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, **smoothing)
        if recipe.random_erasing:
            self.erasing = RandomErasing(recipe.random_erasing, mode="pixel")
        if recipe.ema:
            self.average = ModelEmaV3(model, decay=recipe.ema)
            self.average.requires_grad_(False)  # else DistributedDataParallel waits for gradients
            self.average.train()  # Lightning changes all modules to eval and back together
        self._batches = [0, 0]  # looked at in this epoch: without pictures, with

    def measures(self, number: int) -> dict[str, Metric]:
        """Top-1 and, where there are more than five classes, top-5."""
        return {
            name: MulticlassAccuracy(number, top_k=best, average="micro", validate_args=False)
            for name, best in (("accuracy", 1), ("top5_accuracy", 5))
            if best == 1 or number > best
        }

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Images and their classes."""
        images, y = batch
        return images, y

    def evaluated(self) -> nn.Module:
        """The average of the weights where there is one, otherwise the network."""
        return self.model if self.average is None else self.average.module

    def _keys(self, batch_idx: int) -> tuple[int, ...]:
        return self.seed, self.current_epoch, batch_idx, self.global_rank

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, y = self.unpack(batch)
        target = y
        with seeded(*self._keys(batch_idx)):
            if self.mixup is not None:
                images, target = self.mixup(images, y)
            if self.erasing is not None:  # of mixed pictures, as timm's own loader has it
                self.erasing.device = images.device
                images = self.erasing(images.clone())
        if self.mixup is None:
            return super().training_step((images, y), batch_idx)
        loss = self.loss(self.model(images).float(), target)  # smoothed by mixup
        self._log_loss("train", loss, len(y))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self._holds_pictures(batch):
            super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        if self._holds_pictures(batch):
            super().test_step(batch, batch_idx)

    def _holds_pictures(self, batch: Any) -> bool:
        """Whether something is left of a batch of which unreadable pictures are left out."""
        self._batches[batch is not None] += 1
        return batch is not None

    def on_validation_epoch_end(self) -> None:
        self._check_batches("validation")
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        self._check_batches("test")
        super().on_test_epoch_end()

    def _check_batches(self, split: str) -> None:
        empty, filled = self._batches
        self._batches = [0, 0]
        if empty and not filled:
            raise RunError(f"none of the {split} images of a process can be read")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self.model, step=self.global_step)

    def highest_rate(self) -> float:
        """The recipe's, in proportion to the images of an update, over all steps and processes."""
        recipe, processes = self.recipe, self.trainer.world_size
        images = recipe.batch_size * recipe.accumulate * processes
        rate = recipe.lr * images / recipe.lr_batch
        if self.say is not None and self.trainer.is_global_zero:
            self.say(
                f"learning rate {rate:.3g} at {images:,} images an update ({recipe.batch_size:,} x "
                f"{recipe.accumulate} steps x {processes} processes), {recipe.lr:.3g} at "
                f"{recipe.lr_batch:,}"
            )
        return rate

    def _network(self) -> dict[str, Any]:
        return super()._network() | {"data_config": self.data_config}

    def _notes(self, result: dict[str, Any]) -> dict[str, Any]:
        return {"classes": self.classes, "data_config": self.data_config, "result": result}


class MeanLoss(Metric):
    """The mean of a loss over items; torchmetrics' own looks at every number, to find a NaN."""

    full_state_update = False
    total: Tensor
    items: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("items", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, size: int) -> None:
        """Add the mean loss of so many items."""
        self.total += loss * size
        self.items += size

    def compute(self) -> Tensor:
        return self.total / self.items


class MeanClassAccuracy(MulticlassConfusionMatrix):
    r"""The mean, over the classes that have items, of the share that is recognised.

    .. math:: \frac1{|K|} \sum_{k \in K} \frac{C_{kk}}{\sum_j C_{kj}}, \quad
        K = \{k : \sum_j C_{kj} > 0\}

    with :math:`C_{kj}` items of class :math:`k` taken for :math:`j`. Torchmetrics' macro average
    counts a class without items as 0 as soon as one item is taken for it.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, validate_args=False)

    def compute(self) -> Tensor:
        counts = super().compute()  # [true, predicted]
        items = counts.sum(dim=1)
        return (counts.diag()[items > 0] / items[items > 0]).mean()
