"""A classifier of clouds that is trained by a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pointcluster.training.classifier import Classifier
from pointcluster.training.point_recipe import PointRecipe
from pointcluster.training.schedule import cosine_with_warmup, decay_groups


class PointClassifier(Classifier):
    r"""Trains a network of clouds by a recipe.

    With ``smooth_over="others"`` and a part :math:`\epsilon` the true class of :math:`K` gets
    :math:`1 - \epsilon` and each other one :math:`\epsilon / (K - 1)`: torch's smoothing, whose
    part goes to all classes, with :math:`\epsilon K / (K - 1)`.

    Args:
        model: ``model(batch)`` gives logits ``[B, len(classes)]``; ``model.config`` describes it.
        classes: Names of the classes.
        recipe: How to train.
        seed: Of dropout and stochastic depth, as in :class:`Classifier`.
        preprocessing: What is done with a scan before, as in :class:`Classifier`.

    Raises:
        ValueError: ``smooth_over="others"`` would give the true class nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        recipe: PointRecipe,
        seed: int = 0,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        smoothing, number = recipe.label_smoothing, len(classes)
        if recipe.smooth_over == "others" and number > 1:
            smoothing *= number / (number - 1)
            if smoothing > 1:
                raise ValueError(
                    f"label_smoothing is {recipe.label_smoothing}: with smooth_over='others' and "
                    f"{number} classes it can be {(number - 1) / number:.3f} at most"
                )
        super().__init__(
            model,
            classes,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            label_smoothing=smoothing,
            seed=seed,
            preprocessing=preprocessing,
        )
        self.recipe = recipe

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        if recipe.decay == "all":
            weights = [weight for weight in self.model.parameters() if weight.requires_grad]
            groups: list[dict] = [{"params": weights, "weight_decay": recipe.weight_decay}]
        else:
            groups = decay_groups(self.model, recipe.weight_decay)
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
        steps = recipe.epochs
        unit = int(self.trainer.estimated_stepping_batches) // steps
        unit = unit if recipe.schedule == "step" else 1
        low = recipe.min_lr / recipe.lr if recipe.lr else 0.0
        schedule = cosine_with_warmup(optimizer, steps * unit, recipe.warmup_epochs * unit, low=low)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": recipe.schedule},
        }
