"""How networks are trained: settings of the optimiser and of the augmentation, and their tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch_geometric.transforms import BaseTransform, Compose, FixedPoints, RandomJitter

from pointcluster.training.arguments import number, setting
from pointcluster.training.run import RunError
from pointcluster.transforms import (
    FirstPoints,
    NormalsAsFeatures,
    RandomAnisotropicScale,
    RandomMirror,
    RandomRotateUp,
    RandomTranslate,
    UnitCube,
)

_count, _natural = number(int, 1), number(int, 0)
_positive, _part, _rate = number(float, 0), number(float, 0, 1), number(float, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides how weights change, whatever the network learns from."""

    epochs: int = setting(250, _count, "how often each training item is seen")
    batch_size: int = setting(32, _count, "items a step and process")
    accumulate: int = setting(1, _count, "steps whose gradients are added up before an update")
    optimizer: str = setting("adamw", str, "AdamW, or SGD", choices=("adamw", "sgd"))
    momentum: float = setting(0.9, _part, "of SGD")
    lr: float = setting(2e-3, _rate, "highest learning rate")
    min_lr: float = setting(0.0, _rate, "learning rate at the end of the cosine")
    warmup_epochs: int = setting(10, _natural, "the first, in which the learning rate rises")
    schedule: str = setting(
        "step", str, "the learning rate changes once an epoch or a step", choices=("epoch", "step")
    )
    weight_decay: float = setting(0.05, _rate, "how fast weights shrink")
    decay: str = setting(
        "matrices", str, "what decays: matrices, or all: biases and scales as well",
        choices=("matrices", "all"),
    )  # fmt: skip
    clip_grad: float = setting(0.0, _positive, "highest norm of all gradients together; 0: any")
    label_smoothing: float = setting(0.3, _part, "part of the target given to classes that are not")
    smooth_over: str = setting(
        "all", str, "all: the true class gets its share of that part; others: it does not",
        choices=("all", "others"),
    )  # fmt: skip

    ENDS: ClassVar[tuple[str, ...]] = ("warmup_epochs",)
    """Settings that count some of the epochs."""

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise RunError(
                f"--warmup-epochs is {self.warmup_epochs}, expected fewer than the {self.epochs} "
                "epochs"
            )
        if self.min_lr > self.lr:
            raise RunError(f"--min-lr is {self.min_lr}, more than --lr, which is {self.lr}")

    def follow(self, given: Mapping[str, Any], items: int | None) -> dict[str, Any]:
        """What settings that were not given must be, for those that were and the items a process.

        Raises:
            RunError: A setting was given that has no effect.
        """
        optimizer = given.get("optimizer", self.optimizer)
        if "momentum" in given and optimizer != "sgd":
            raise RunError(
                f"--momentum is of SGD, and the optimizer is {optimizer}: add --optimizer sgd"
            )
        out: dict[str, Any] = {}
        epochs = given.get("epochs", self.epochs)
        ends = {name: given.get(name, getattr(self, name)) for name in self.ENDS}
        if sum(ends.values()) >= epochs:
            for name in self.ENDS:
                if name not in given and ends[name]:
                    out[name] = ends[name] * epochs // self.epochs
        if "batch_size" not in given and items is not None and 0 < items < self.batch_size:
            out["batch_size"] = items
        return out

    def smoothing(self, classes: int) -> float:
        r"""Torch's ``label_smoothing`` for so many classes.

        With ``smooth_over="others"`` and a part :math:`\epsilon` the true class of :math:`K` gets
        :math:`1 - \epsilon` and each other one :math:`\epsilon / (K - 1)`: torch's smoothing, whose
        part goes to all classes, with :math:`\epsilon K / (K - 1)`.

        Raises:
            ValueError: The true class would get nothing.
        """
        if self.smooth_over == "all" or classes < 2:
            return self.label_smoothing
        smoothing = self.label_smoothing * classes / (classes - 1)
        if smoothing > 1:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}: with smooth_over='others' and "
                f"{classes} classes it can be {(classes - 1) / classes:.3f} at most"
            )
        return smoothing

    def optimizer_of(self, model: nn.Module, lr: float) -> Optimizer:
        """The optimiser of a network's weights that need gradients, at the highest rate."""
        groups = decay_groups(model, self.weight_decay, all=self.decay == "all")
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=self.momentum)
        return torch.optim.AdamW(groups, lr=lr)

    def schedule_of(self, optimizer: Optimizer, unit: int) -> LambdaLR:
        """The learning rate of an optimiser that begins at the highest, by changes an epoch."""
        steps, warmup = self.epochs * unit, self.warmup_epochs * unit
        return cosine_with_warmup(optimizer, steps, warmup, low=self.min_lr / (self.lr or 1.0))


def cosine_with_warmup(
    optimizer: Optimizer, steps: int, warmup: int, *, low: float = 0.0, start: float | None = None
) -> LambdaLR:
    r"""A learning rate that rises in a line and falls as a cosine, step by step.

    .. math:: \eta_t / \eta = (t + 1) / w \ (t < w), \qquad
        l + \tfrac{1 - l}{2} \left(1 + \cos \pi \tfrac{t - w}{T - w}\right) \ (t \ge w)

    With ``start`` it is timm's ``CosineLRScheduler``, whose cosine counts from the first step:

    .. math:: \eta_t / \eta = s + (1 - s) t / w \ (t < w), \qquad
        l + \tfrac{1 - l}{2} \left(1 + \cos \pi \tfrac{t}{T}\right) \ (t \ge w)

    Args:
        optimizer: Holds the highest rate.
        steps: :math:`T`, steps to the lowest rate, which then stays.
        warmup: :math:`w`, steps to the highest rate.
        low: :math:`l`, the rate at the end as a part of the highest.
        start: :math:`s`, the rate of the first step as a part of the highest.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup if start is None else start + (1 - start) * step / warmup
        first = warmup if start is None else 0
        progress = min(1.0, (step - first) / max(1, steps - first))
        return low + 0.5 * (1 - low) * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def decay_groups(model: nn.Module, weight_decay: float, *, all: bool = False) -> list[dict]:
    """Parameter groups in which all weights decay, or matrices, and no biases, scales, scalars."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [p for p in weights if all or p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in weights if not all and p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True, kw_only=True)
class PointRecipe(Recipe):
    """Settings that decide how a network of clouds is trained.

    The defaults are those that newer papers on ScanObjectNN share: AdamW, a cosine, smoothed
    labels, scaling, turning, other points each time.
    """

    normalize: bool = setting(
        True, bool, "centre each cloud and scale it to the cube from -1 to 1, in the test too"
    )
    resample: bool = setting(
        True, bool, "other points of the cloud in each epoch, not always the first"
    )
    mirror: bool = setting(False, bool, "mirror along the first axis, every other time")
    rotate: bool = setting(True, bool, "turn about the up axis by any angle")
    scale: float = setting(
        1.25, number(float, 1, 1000), "stretch each axis by 1 / X to X; 1: not", off=1.0
    )
    translate: float = setting(0.0, _rate, "move by up to X along each axis", off=0.0)
    jitter: float = setting(0.0, _rate, "move every point by up to X along each axis", off=0.0)

    def train_transform(
        self, num_points: int, up: str = "y", *, normals: bool = False
    ) -> Callable[[Any], Any]:
        """What happens to a training cloud, anew in each epoch, and to a view that votes.

        Args:
            num_points: Points that the network gets.
            up: The axis that points up: ``"y"``, ``"z"``, ``"-x"``, ...
            normals: The network gets normals, too.
        """
        axis = "xyz".index(up[-1])
        steps: list[BaseTransform] = [UnitCube()] if self.normalize else []
        steps += [] if self.resample else [FirstPoints(num_points)]
        steps += [FixedPoints(num_points, replace=False)]  # in random order
        steps += [RandomMirror(1 if axis == 0 else 0)] if self.mirror else []
        steps += [RandomRotateUp(axis=axis)] if self.rotate else []
        steps += [RandomAnisotropicScale(1 / self.scale, self.scale)] if self.scale > 1 else []
        steps += [RandomTranslate(self.translate)] if self.translate else []
        steps += [RandomJitter(self.jitter)] if self.jitter else []
        steps += [NormalsAsFeatures()] if normals else []
        return Compose(steps)

    def test_transform(self, num_points: int, *, normals: bool = False) -> Callable[[Any], Any]:
        """What happens to a validation or test cloud: the first points, always."""
        steps: list[BaseTransform] = [UnitCube()] if self.normalize else []
        return Compose(
            [*steps, FirstPoints(num_points), *([NormalsAsFeatures()] if normals else [])]
        )

    def preprocessing(
        self,
        num_points: int,
        *,
        sampled: int,
        normalized: bool = True,
        up: str = "y",
        features: Sequence[str] = (),
    ) -> dict[str, Any]:
        """What ``python -m pointcluster.predict`` is to do with a scan, as the test does it here.

        Args:
            num_points: Points that the network gets.
            sampled: Of how many points of the surface these are the first.
            normalized: Whether the data set's clouds lie in the unit sphere around their mean.
            up: The axis that points up.
            features: What else of a point the network gets, such as ``["normal"]``.
        """
        normalize = "cube" if self.normalize else normalized
        known = {"num_points": num_points, "sampled": sampled, "normalize": normalize, "up": up}
        return known | {"features": list(features)}


# "published" is what the program that the paper on context clusters released for ScanObjectNN does
# when it is called as its text says: the first 1,024 points, always, in random order.
POINT_RECIPES = {
    "published": PointRecipe(
        optimizer="sgd",
        lr=0.01,
        min_lr=1e-4,
        warmup_epochs=0,
        schedule="epoch",
        weight_decay=1e-4,
        decay="all",
        label_smoothing=0.2,
        smooth_over="others",
        normalize=False,
        resample=False,
        rotate=False,
        scale=1.5,
        translate=0.2,
    ),
    "modern": PointRecipe(),
    "small": PointRecipe(
        epochs=30,
        batch_size=16,
        warmup_epochs=3,
        label_smoothing=0.1,
        normalize=False,
        mirror=True,
        rotate=False,
        translate=0.1,
        jitter=0.01,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    r"""Settings that decide how a network of images is trained.

    The defaults are the published recipe for ImageNet (Ma et al., "Image as Set of Points",
    section 4.1), with the schedule's two ends as in its program. The learning rate grows with the
    images an update sees, over all processes and added-up steps:

    .. math:: \eta = \eta_0 \cdot \frac{\text{batch size} \times \text{accumulate} \times
        \text{processes}}{\text{lr batch}}
    """

    model: str = setting("coc_tiny", str, "network")
    drop_path: float = setting(0.1, number(float, 0, 0.99), "highest rate of stochastic depth")
    epochs: int = setting(310, _count, "how often each training image is seen")
    batch_size: int = setting(128, _count, "images a step and process")
    cooldown_epochs: int = setting(10, _natural, "the last, at the lowest learning rate")
    warmup_epochs: int = setting(5, _natural, "the first, in which the learning rate rises")
    schedule: str = setting(
        "epoch", str, "the learning rate changes once an epoch or a step", choices=("epoch", "step")
    )
    lr: float = setting(1e-3, _rate, "highest learning rate at --lr-batch images")
    lr_batch: int = setting(
        1024, _count, "images an update at which --lr holds; it grows in proportion"
    )
    min_lr: float = setting(1e-6, _rate, "learning rate at the end")
    warmup_lr: float = setting(1e-6, _rate, "learning rate at the start")
    label_smoothing: float = setting(0.1, _part, "part of the target given to classes that are not")
    mixup: float = setting(0.8, _positive, "alpha of mixup; 0: none")
    cutmix: float = setting(1.0, _positive, "alpha of CutMix; 0: none")
    crop: str = setting(
        "resized", str,
        "resized: a part of the image, scaled to the input; shifted: all of it, a little aside",
        choices=("resized", "shifted"),
    )  # fmt: skip
    auto_augment: str = setting("rand-m9-mstd0.5-inc1", str, "timm's name of a policy; none: none")
    random_erasing: float = setting(0.25, _part, "share of the images with a part erased")
    ema: float = setting(
        0.0, _part,
        "decay of a moving average of the weights, such as 0.9998, which is then what is tested "
        "and saved; 0: none",
    )  # fmt: skip

    ENDS: ClassVar[tuple[str, ...]] = ("warmup_epochs", "cooldown_epochs")

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
        super().__post_init__()

    def follow(self, given: Mapping[str, Any], items: int | None) -> dict[str, Any]:
        out = super().follow(given, items)
        mixed = given.get("mixup", self.mixup) or given.get("cutmix", self.cutmix)
        if mixed and out.get("batch_size", 1) > 1:
            out["batch_size"] -= out["batch_size"] % 2
        return out

    def schedule_of(self, optimizer: Optimizer, unit: int) -> LambdaLR:
        highest = float(optimizer.param_groups[0]["lr"]) or 1.0
        return cosine_with_warmup(
            optimizer,
            (self.epochs - self.cooldown_epochs) * unit,
            self.warmup_epochs * unit,
            low=self.min_lr / highest,
            start=self.warmup_lr / highest,
        )


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
