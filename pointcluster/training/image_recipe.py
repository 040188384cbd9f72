"""How image networks are trained: one table of settings, and the arguments that change them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pointcluster.training.arguments import Parser, number
from pointcluster.training.recipe import add_settings, chosen, setting
from pointcluster.training.run_folder import RunError

ENDS = ("warmup_epochs", "cooldown_epochs")
_count, _natural = number(int, 1), number(int, 0)
_positive, _part = number(float, 0), number(float, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """Settings that decide how a network of images is trained.

    The defaults are the published recipe for ImageNet (Ma et al., "Image as Set of Points",
    section 4.1), with the schedule's two ends as in its program.
    """

    model: str = setting("coc_tiny", str, "network")
    drop_path: float = setting(0.1, number(float, 0, 0.99), "highest rate of stochastic depth")
    batch_size: int = setting(128, _count, "images a step and process")
    accumulate: int = setting(1, _count, "steps whose gradients are added up before an update")
    epochs: int = setting(310, _count, "how often each training image is seen")
    cooldown_epochs: int = setting(10, _natural, "the last of them, at the lowest learning rate")
    warmup_epochs: int = setting(5, _natural, "the first of them, in which the learning rate rises")
    schedule: str = setting(
        "epoch", str, "the learning rate changes once an epoch or a step", choices=("epoch", "step")
    )
    lr: float = setting(1e-3, _positive, "highest learning rate of AdamW at --lr-batch images")
    lr_batch: int = setting(
        1024, _count, "images an update at which --lr holds; it grows in proportion"
    )
    min_lr: float = setting(1e-6, _positive, "learning rate at the end")
    warmup_lr: float = setting(1e-6, _positive, "learning rate at the start")
    weight_decay: float = setting(0.05, _positive, "of matrices only")
    clip_grad: float = setting(0.0, _positive, "highest norm of all gradients together; 0: any")
    label_smoothing: float = setting(
        0.1, _part, "part of the target that is spread over all classes"
    )
    mixup: float = setting(0.8, _positive, "alpha of mixup; 0: none")
    cutmix: float = setting(1.0, _positive, "alpha of CutMix; 0: none")
    crop: str = setting(
        "resized",
        str,
        "resized: a part of the image, scaled to the input; shifted: all of it, a little aside",
        choices=("resized", "shifted"),
    )
    auto_augment: str = setting("rand-m9-mstd0.5-inc1", str, "timm's name of a policy; none: none")
    random_erasing: float = setting(0.25, _part, "share of the images with a part erased")
    ema: float = setting(
        0.0,
        number(float, 0, 1),
        "decay of a moving average of the weights, such as 0.9998, which is then what is tested "
        "and saved; 0: none",
    )

    def __post_init__(self) -> None:
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise RunError(f"--batch-size is {self.batch_size}: mixup and CutMix take an even one")
        if self.warmup_epochs + self.cooldown_epochs > self.epochs or (
            self.cooldown_epochs == self.epochs
        ):
            raise RunError(
                f"--warmup-epochs is {self.warmup_epochs} and --cooldown-epochs "
                f"{self.cooldown_epochs}, of {self.epochs} epochs in all: give fewer"
            )

    def follow(self, given: Mapping[str, Any], items: int | None) -> dict[str, Any]:
        """What settings that were not given must be, for those that were and the data.

        Args:
            given: Settings that were given.
            items: Training images a process, if they are known.
        """
        out: dict[str, Any] = {}
        epochs = given.get("epochs", self.epochs)
        ends = {name: given.get(name, getattr(self, name)) for name in ENDS}
        if sum(ends.values()) >= epochs:
            for name in ENDS:
                if name not in given and ends[name]:
                    out[name] = ends[name] * epochs // self.epochs
        if "batch_size" not in given and items is not None and 0 < items < self.batch_size:
            mixed = given.get("mixup", self.mixup) or given.get("cutmix", self.cutmix)
            out["batch_size"] = items - items % 2 if mixed and items > 1 else items
        return out


RECIPES = {
    "ImageNet": ImageRecipe(),
    "Fashion-MNIST": ImageRecipe(
        model="coc_micro",
        drop_path=0.0,
        batch_size=64,
        epochs=30,
        cooldown_epochs=0,
        warmup_epochs=1,
        schedule="step",
        lr=2e-3,
        lr_batch=64,
        mixup=0.0,
        cutmix=0.0,
        crop="shifted",
        auto_augment="none",
        random_erasing=0.0,
    ),
}


def add_recipe_arguments(parser: Parser, recipes: dict[str, ImageRecipe] = RECIPES) -> None:
    """Add one argument for each setting of a recipe; ``None`` where it is not given.

    Args:
        parser: Gets a group of arguments.
        recipes: By name; the help shows their values side by side.
    """
    add_settings(parser, recipes)


def chosen_recipe(
    args: argparse.Namespace, base: ImageRecipe, items: int | None = None
) -> tuple[ImageRecipe, list[str]]:
    """A recipe with the settings that were given, and what follows; see :func:`chosen`."""
    return chosen(args, base, items)
