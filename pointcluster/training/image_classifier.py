"""A classifier of pictures as a Lightning module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from pointcluster._optional import installed_by
from pointcluster.training.classifier import Classifier
from pointcluster.training.image_recipe import ImageRecipe
from pointcluster.training.run_folder import RunError
from pointcluster.training.seeding import mix, seeded


class ImageClassifier(Classifier):
    r"""Trains a network of pictures by a recipe: with timm's mixup, average of weights, schedule.

    The learning rate grows with the images an update sees, over all processes and added-up steps:

    .. math:: \eta = \eta_0 \cdot \frac{\text{batch size} \times \text{accumulate} \times
        \text{processes}}{\text{lr batch}}

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
        super().__init__(
            model,
            classes,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            label_smoothing=recipe.label_smoothing,
            seed=seed,
        )
        self.recipe, self.data_config, self.say = recipe, data_config, say
        with installed_by("image"):
            from timm.data import Mixup
            from timm.data.random_erasing import RandomErasing
            from timm.utils import ModelEmaV3
        self.mixup = (
            Mixup(
                recipe.mixup,
                recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=len(self.classes),
            )
            if recipe.mixup or recipe.cutmix
            else None
        )
        self.erasing = (
            RandomErasing(recipe.random_erasing, mode="pixel") if recipe.random_erasing else None
        )
        self.average = None
        if recipe.ema:
            self.average = ModelEmaV3(model, decay=recipe.ema)
            self.average.requires_grad_(False)  # else DistributedDataParallel waits for gradients
            self.average.train()  # Lightning changes all modules to eval and back together
        self.schedule: Any = None
        self._batches = [0, 0]  # looked at in this epoch: without pictures, with

    def accuracies(self, number: int) -> dict[str, Metric]:
        """Top-1 and, where there are more than five classes, top-5."""
        measured: dict[str, Metric] = {"accuracy": MulticlassAccuracy(number, average="micro")}
        if number > 5:
            measured["top5_accuracy"] = MulticlassAccuracy(number, average="micro", top_k=5)
        return measured

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Images and their classes."""
        images, y = batch
        return images, y

    def evaluated(self) -> nn.Module:
        """The average of the weights where there is one, otherwise the network."""
        return self.model if self.average is None else self.average.module

    def on_train_epoch_start(self) -> None:
        # Not at the end of an epoch: the checkpoint is written there, and a resumed run would
        # begin with the rate of the epoch before.
        self.schedule.step(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.schedule.step_update(self.global_step)
        torch.manual_seed(mix(*self._keys(batch_idx)))

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
        loss = F.cross_entropy(self.model(images).float(), target)  # smoothed by mixup
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        with installed_by("image"):
            from timm.optim import param_groups_weight_decay
            from timm.scheduler import CosineLRScheduler
        recipe, images = self.recipe, self.images_an_update
        groups = param_groups_weight_decay(
            self.model,
            recipe.weight_decay,
            no_weight_decay_list=getattr(self.model, "no_weight_decay", set)(),
        )
        rate = recipe.lr * images / recipe.lr_batch
        if self.say is not None and self.trainer.is_global_zero:
            self.say(
                f"learning rate {rate:.3g} at {images:,} images an update ({recipe.batch_size:,} x "
                f"{recipe.accumulate} steps x {self.trainer.world_size} processes), "
                f"{recipe.lr:.3g} at {recipe.lr_batch:,}"
            )
        optimizer = torch.optim.AdamW(groups, lr=rate)
        updates = int(self.trainer.estimated_stepping_batches) // recipe.epochs
        unit = updates if recipe.schedule == "step" else 1
        self.schedule = CosineLRScheduler(
            optimizer,
            t_initial=(recipe.epochs - recipe.cooldown_epochs) * unit,
            lr_min=recipe.min_lr,
            warmup_t=recipe.warmup_epochs * unit,
            warmup_lr_init=recipe.warmup_lr,
            t_in_epochs=recipe.schedule == "epoch",
        )
        return optimizer

    @property
    def images_an_update(self) -> int:
        """Over all processes and the steps whose gradients are added up."""
        return self.recipe.batch_size * self.recipe.accumulate * self.trainer.world_size

    def _keys(self, batch_idx: int) -> tuple[int, ...]:
        return self.seed, self.current_epoch, batch_idx, self.global_rank

    def _network(self) -> dict[str, Any]:
        return super()._network() | {"data_config": self.data_config}
