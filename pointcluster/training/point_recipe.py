"""How networks of clouds are trained: three tables of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch_geometric.transforms import (
    BaseTransform,
    Compose,
    FixedPoints,
    RandomJitter,
)

from pointcluster.training.arguments import number
from pointcluster.training.recipe import setting
from pointcluster.training.run_folder import RunError
from pointcluster.transforms import (
    FirstPoints,
    RandomAnisotropicScale,
    RandomMirror,
    RandomRotateUp,
    RandomTranslate,
    UnitCube,
)

_count, _natural = number(int, 1), number(int, 0)
_positive, _part = number(float, 0), number(float, 0, 1)
_length = _rate = number(float, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class PointRecipe:
    """Settings that decide how a network of clouds is trained.

    The defaults are those that newer papers on ScanObjectNN share: AdamW, a cosine, smoothed
    labels, scaling, turning, other points each time.
    """

    epochs: int = setting(250, _count, "how often each training cloud is seen")
    batch_size: int = setting(32, _count, "clouds a step and process")
    optimizer: str = setting("adamw", str, "AdamW, or SGD", choices=("adamw", "sgd"))
    momentum: float = setting(0.9, _part, "of SGD")
    lr: float = setting(2e-3, _rate, "highest learning rate")
    min_lr: float = setting(0.0, _rate, "learning rate at the end of the cosine")
    warmup_epochs: int = setting(10, _natural, "epochs in which the learning rate rises in a line")
    schedule: str = setting(
        "step", str, "the learning rate changes once an epoch or a step", choices=("epoch", "step")
    )
    weight_decay: float = setting(0.05, _rate, "how fast weights shrink")
    decay: str = setting(
        "matrices", str, "what decays: matrices, or biases and scales as well",
        choices=("matrices", "all"),
    )  # fmt: skip
    clip_grad: float = setting(0.0, _positive, "highest norm of all gradients together; 0: any")
    label_smoothing: float = setting(0.3, _part, "part of the target given to classes that are not")
    smooth_over: str = setting(
        "all", str, "all: the true class gets its share of that part; others: it does not",
        choices=("all", "others"),
    )  # fmt: skip
    normalize: bool = setting(
        True, bool, "centre each cloud and scale it to the cube from -1 to 1, in the test too"
    )
    resample: bool = setting(
        True, bool, "other points of the cloud in each epoch, not always the first"
    )
    mirror: bool = setting(False, bool, "mirror along the first axis, every other time")
    rotate: bool = setting(True, bool, "turn about the up axis by any angle")
    scale: float = setting(1.25, number(float, 1, 1000), "stretch each axis by 1 / X to X; 1: not")
    translate: float = setting(0.0, _length, "move by up to X along each axis")
    jitter: float = setting(0.0, _length, "move every point by up to X along each axis")

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise RunError(
                f"--warmup-epochs is {self.warmup_epochs}, expected fewer than the {self.epochs} "
                "epochs"
            )
        if self.min_lr > self.lr:
            raise RunError(f"--min-lr is {self.min_lr}, more than --lr, which is {self.lr}")

    def follow(self, given: Mapping[str, Any], items: int | None) -> dict[str, Any]:
        """What settings that were not given must be, for those that were and the data.

        Args:
            given: Settings that were given.
            items: Training clouds a process, if they are known.
        """
        out: dict[str, Any] = {}
        epochs = given.get("epochs", self.epochs)
        if "warmup_epochs" not in given and self.warmup_epochs >= epochs:
            out["warmup_epochs"] = self.warmup_epochs * epochs // self.epochs
        if "batch_size" not in given and items is not None and 0 < items < self.batch_size:
            out["batch_size"] = items
        return out

    def train_transform(self, num_points: int, up: str = "y") -> Callable[[Any], Any]:
        """What happens to a training cloud, anew in each epoch, and to a view that votes.

        Args:
            num_points: Points that the network gets.
            up: The axis that points up: ``"y"``, ``"z"``, ``"-x"``, ...
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
        return Compose(steps)

    def test_transform(self, num_points: int) -> Callable[[Any], Any]:
        """What happens to a validation or test cloud: the first points, always.

        Args:
            num_points: Points that the network gets.
        """
        steps: list[BaseTransform] = [UnitCube()] if self.normalize else []
        return Compose([*steps, FirstPoints(num_points)])


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
