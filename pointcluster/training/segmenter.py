"""Networks that tell the class of every point: blocks of scenes to train on, whole ones to test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform, Compose
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from pointcluster.datasets.ground import CELL
from pointcluster.datasets.scenes import IGNORED
from pointcluster.models.stitch import segment_scene, thinned
from pointcluster.training.arguments import number, setting
from pointcluster.training.classifier import Classifier
from pointcluster.training.data import SeededDataModule, SeededDataset, ShardSampler
from pointcluster.training.recipe import Recipe
from pointcluster.transforms import RandomAnisotropicScale, RandomBlock, RandomRotateUp

_count, _part = number(int, 1), number(float, 0, 1)


@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Recipe):
    """Settings that decide how a network of scenes is trained.

    An epoch has as many blocks as hold all training points once.
    """

    epochs: int = setting(12, _count, "how often as many points are seen as there are")
    batch_size: int = setting(4, _count, "blocks a step and process")
    lr: float = setting(3e-3, number(float, 0, 1000), "highest learning rate")
    warmup_epochs: int = setting(1, number(int, 0), "the first, in which the learning rate rises")
    clip_grad: float = setting(
        1.0, number(float, 0), "highest norm of all gradients together; 0: any"
    )
    label_smoothing: float = setting(0.0, _part, "part of the target given to classes that are not")
    num_points: int = setting(4096, _count, "points of a block")
    voxel_size: float = setting(
        0.0, number(float, 0), "keep one point in each voxel of this edge, in metres; 0: all"
    )
    balanced: float = setting(
        0.5, _part, "how often a block is drawn around a point of a class drawn evenly"
    )
    weighting: float = setting(
        0.5, number(float, 0, 2), "a class counts as its share of the points to minus this power"
    )
    drop: float = setting(0.3, number(float, 0, 0.95), "leave out up to this share of the points")
    rotate: bool = setting(True, bool, "turn about the vertical by any angle")
    scale: float = setting(
        1.1, number(float, 1, 1000), "stretch each axis by 1 / X to X; 1: not", off=1.0
    )
    brighten: float = setting(
        0.2, _part, "multiply the first feature by 1 - X to 1 + X; 0: not", off=0.0
    )

    def train_transform(self) -> Callable[[Any], Any]:
        """What happens to a scene: a block of it, changed, anew each time."""
        steps: list[BaseTransform] = [
            RandomBlock(self.num_points, balanced=self.balanced, drop=self.drop)
        ]
        steps += [RandomRotateUp(axis=2)] if self.rotate else []
        steps += [RandomAnisotropicScale(1 / self.scale, self.scale)] if self.scale > 1 else []
        steps += [_Brighten(self.brighten)] if self.brighten else []
        return Compose(steps)

    def class_weights(self, scenes: Sequence[Data], classes: int) -> Tensor:
        """What a point of each class counts, 1 on average over all points."""
        counts = torch.zeros(classes, dtype=torch.float64)
        for scene in scenes:
            counts += torch.bincount(scene.y[scene.y >= 0], minlength=classes)
        weights = torch.where(counts > 0, counts.clamp_min(1) ** -self.weighting, 0)
        return (weights * counts.sum() / (weights * counts).sum()).float()


class _Brighten(BaseTransform):
    def __init__(self, most: float) -> None:
        self.most = most

    def forward(self, data: Data) -> Data:
        if data.get("x") is not None and data.x.size(1):
            factor = torch.ones(data.x.size(1))
            factor[0] = 1 + self.most * (2 * float(torch.rand(())) - 1)
            data.x = data.x * factor
        return data


class SceneBlocks:
    """Scenes, again and again: as many items as blocks of a size hold all points once.

    Args:
        scenes: The scenes; a larger one is an item more often.
        num_points: Points of a block.
        voxel_size: Edge of the voxels that scenes are thinned to before; 0: not.
    """

    def __init__(self, scenes: Sequence[Data], num_points: int, *, voxel_size: float = 0.0) -> None:
        self.scenes = [_thinned(scene, voxel_size) for scene in scenes]
        self.items = [
            number
            for number, scene in enumerate(self.scenes)
            for _ in range(math.ceil(len(scene.pos) / num_points))
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Data:
        return Data(**self.scenes[self.items[index]].to_dict())

    def edge(self, num_points: int) -> float:
        """Edge of a square that holds so many of the scenes' points, in the positions' unit."""
        area = 0.0
        for scene in self.scenes:
            cells = torch.floor(scene.pos[:, :2].double() / CELL).long().unique(dim=0)
            area += CELL**2 * len(cells)
        return math.sqrt(num_points * area / sum(len(scene.pos) for scene in self.scenes))


def _thinned(scene: Data, size: float) -> Data:
    kept = thinned(scene.pos, size)
    return Data(
        **{key: scene[key][kept] for key in ("pos", "x", "y") if scene.get(key) is not None}
    )


class SceneDataModule(SeededDataModule):
    """Blocks of scenes for training; whole scenes for validation and test.

    Args:
        train: Training scenes.
        test: Test scenes.
        recipe: How to train.
        val: Validation scenes, or none.
        num_workers: Processes that cut and augment blocks; 0 does it in the training process.
        seed: Order and augmentation.
        collate: Makes a batch of blocks, such as ``PrecomputeHierarchy(model.plans).collate``.
    """

    def __init__(
        self,
        train: Sequence[Data],
        test: Sequence[Data],
        *,
        recipe: SceneRecipe,
        val: Sequence[Data] = (),
        num_workers: int = 0,
        seed: int = 0,
        collate: Callable[[list[Data]], Batch] | None = None,
    ) -> None:
        self.blocks = SceneBlocks(train, recipe.num_points, voxel_size=recipe.voxel_size)
        super().__init__(
            SeededDataset(self.blocks, transform=recipe.train_transform(), seed=seed),  # type: ignore[arg-type]
            SeededDataset(val, seed=seed),
            SeededDataset(test, seed=seed),
            batch_size=recipe.batch_size,
            num_workers=num_workers,
            seed=seed,
            collate=collate or Batch.from_data_list,
        )

    def val_dataloader(self) -> DataLoader:
        return self._scenes(self.val)

    def test_dataloader(self) -> DataLoader:
        return self._scenes(self.test)

    def check_shares(self, processes: int) -> None:
        """All processes look at every scene, and share its blocks."""

    def _scenes(self, items: SeededDataset) -> DataLoader:
        sampler = ShardSampler(len(items))
        return DataLoader(items, batch_size=None, sampler=sampler)


class PointSegmenter(Classifier):
    """Trains a network to tell the class of every point of a scene, by a recipe.

    Validation and test are of whole scenes, stitched from overlapping blocks, as
    :func:`~pointcluster.models.segment_scene` does it; points without a class count nowhere.

    Args:
        model: ``model(batch)`` gives logits ``[N, len(classes)]``; ``model.config`` describes it.
        classes: Names of the classes.
        recipe: How to train.
        edge: Edge of the blocks that whole scenes are cut into.
        weights: What a point of each class counts in the training loss; 1, if not said.
        seed: Of dropout and stochastic depth, as in :class:`Classifier`.
        preprocessing: What is done with a scan before; ``num_points``, ``edge`` and ``voxel_size``
            are added to it.
    """

    recipe: SceneRecipe
    weights: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        recipe: SceneRecipe,
        edge: float,
        weights: Tensor | None = None,
        seed: int = 0,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        self.blocks: dict[str, Any] = {
            "num_points": recipe.num_points, "edge": edge, "voxel_size": recipe.voxel_size
        }  # fmt: skip
        noted = {**(preprocessing or {}), **self.blocks}
        super().__init__(model, classes, recipe=recipe, seed=seed, preprocessing=noted)
        number = len(self.classes)
        self.confusion = MulticlassConfusionMatrix(number, ignore_index=IGNORED)
        self.register_buffer("weights", torch.ones(number) if weights is None else weights)

    def measures(self, number: int) -> dict[str, Metric]:
        """Share of the points, and the mean over classes of intersection over union."""
        return {
            "accuracy": MulticlassAccuracy(number, average="micro", ignore_index=IGNORED),
            "miou": MulticlassJaccardIndex(number, average="macro", ignore_index=IGNORED),
        }

    def loss(self, logits: Tensor, y: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Weighted cross entropy over the points with a class."""
        if not bool((y >= 0).any()):
            return 0 * logits.sum()
        weights = self.weights.to(logits.dtype) if self.training else None
        return F.cross_entropy(
            logits, y, weight=weights, ignore_index=IGNORED, label_smoothing=smoothing
        )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits, y = self._stitched(batch)
        self.val_metrics(logits, y)
        self._log("val", self.loss(logits, y), len(y))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        logits, y = self._stitched(batch)
        self.test_metrics(logits, y)
        self.confusion(logits, y)
        self._log("test", self.loss(logits, y), len(y))

    def _stitched(self, scene: Data) -> tuple[Tensor, Tensor]:
        """Logarithms of a scene's probabilities, and its classes: this process's part of both."""
        rank, world = self.global_rank, self.trainer.world_size
        found = segment_scene(self.evaluated(), scene, **self.blocks, part=(rank, world))
        found = found.to(scene.y.device)
        if world > 1:
            torch.distributed.all_reduce(found)
        return found.clamp_min(1e-8).log()[rank::world], scene.y[rank::world]


def class_table(confusion: Tensor, classes: Sequence[str]) -> list[list[Any]]:
    """What a confusion matrix says of every class, a row each, after a row of titles.

    Args:
        confusion: Counts ``[true, predicted]``.
        classes: Names of the classes.
    """
    counts = confusion.double()
    hits, true, told = counts.diag(), counts.sum(dim=1), counts.sum(dim=0)
    rows: list[list[Any]] = [["class", "points", "iou", "recall", "precision"]]
    for index, name in enumerate(classes):
        shares = [
            float(hits[index] / whole[index]) if whole[index] else None
            for whole in (true + told - hits, true, told)
        ]
        rows.append([name, int(true[index]), *shares])
    return rows


def fingerprint_scenes(*splits: Sequence[Data]) -> str:
    """A digest of all points, features and classes: other scenes have another."""
    digest = hashlib.blake2b(digest_size=16)
    for split in splits:
        digest.update(f"{len(split)};".encode())
        for scene in split:
            for key in ("pos", "x", "y"):
                if scene.get(key) is not None:
                    digest.update(f"{key} {list(scene[key].shape)};".encode())
                    digest.update(scene[key].contiguous().numpy().data)
    return digest.hexdigest()


class PartIoU(Metric):
    r"""Intersection over union of an object's parts, as papers on ShapeNetPart count it.

    Of an object: the mean over *all* parts of its category, 1 for a part that is neither there nor
    predicted; a point's part is the best scored one of its category. `instance` is the mean over
    objects, `category` the mean over categories of the means over their objects. (Qi et al.,
    "PointNet", CVPR 2017.)

    Args:
        parts: The parts of every category.
    """

    full_state_update = False

    def __init__(self, parts: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.parts = [list(some) for some in parts]
        zeros = torch.zeros(len(self.parts), dtype=torch.float64)
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("objects", zeros.clone(), dist_reduce_fx="sum")
        self.total: Tensor
        self.objects: Tensor

    def update(self, logits: Tensor, y: Tensor, batch: Tensor, category: Tensor) -> None:
        """Count some objects.

        Args:
            logits: Scores of all parts. [N, parts]
            y: The parts. [N]
            batch: The object of every point, from 0 on. [N]
            category: The category of every object. [B]
        """
        for item, kind in enumerate(category.tolist()):
            here = batch == item
            parts = torch.tensor(self.parts[kind], device=y.device)
            told = parts[logits[here][:, parts].argmax(dim=1)]
            ious = []
            for part in self.parts[kind]:
                one, other = told == part, y[here] == part
                union = int((one | other).sum())
                ious.append(int((one & other).sum()) / union if union else 1.0)
            self.total[kind] += sum(ious) / len(ious)
            self.objects[kind] += 1

    def compute(self) -> dict[str, Tensor]:
        """`instance` and `category`."""
        some = self.objects > 0
        return {
            "instance": self.total.sum() / self.objects.sum(),
            "category": (self.total[some] / self.objects[some]).mean(),
        }
