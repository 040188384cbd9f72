"""A network that the page offers, whatever it was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pointcluster._optional import installed_by
from pointcluster.app.source import SCENES, Source, as_file
from pointcluster.datasets import read_image, read_points
from pointcluster.datasets.readers.las import open_las
from pointcluster.models import PointMLPCoC
from pointcluster.predict import Predictor
from pointcluster.segment import Segmenter

LARGEST_CLOUD = 8192
FEWEST_POINTS = 4
LARGEST_PICTURE = 448
LARGEST_SCENE = 3_000_000
"""Points of a scan; a packed file's size says little of the memory that it takes."""


class Network:
    """A trained network with its classes and what is said about it; nothing in it ever changes, so
    that all users share it."""

    kind: str
    """What it takes: ``"picture"``, ``"scan"`` or ``"scene"``."""
    also: str = ""
    """Of which other kind an upload may be."""
    size_label: str = ""
    """What its sizes count."""
    sizes: tuple[int, ...] = ()
    """Sizes of inputs to choose from; the first is the one that it was trained on."""
    up: str = ""
    """The axis that points up in what it was trained on; of pictures none."""

    def __init__(self, title: str, model: Any, classes: Sequence[str], about: str = "") -> None:
        self.title, self.model, self.about = title, model.eval(), about
        self.classes = tuple(name.replace("_", " ") for name in classes)
        self.heads: list[list[int]] = model.heads
        """Heads to choose from, of every block of every stage."""
        if isinstance(model, PointMLPCoC):  # a group has one centre: all heads are one there
            self.heads = [[1] * len(blocks) for blocks in model.heads]

    def takes(self, source: Source) -> bool:
        """Whether it can look at such a thing."""
        return source.kind == self.kind or (source.is_upload and source.kind == self.also)


class Classifier(Network, ABC):
    """A network that says what a picture or a scan is as a whole."""

    @abstractmethod
    def prepare(self, source: Source, size: int, up: str | None = None) -> Any:
        """What the network takes of a picture or a scan, at one of its sizes and turned upright.

        Raises:
            ImportError: A package that reads it is not installed.
            ValueError: It is damaged or does not fit the network.
        """

    @abstractmethod
    def draw_options(self) -> dict[str, Any]:
        """What the drawing functions need to know beside the prepared input."""

    @torch.inference_mode()
    def classify(self, data: Any) -> dict[str, float]:
        """The probability of every class, the likeliest first."""
        logits = self.model(data)[0].double()
        probability, order = logits.softmax(dim=0).sort(descending=True, stable=True)
        pairs = zip(order.tolist(), probability.tolist(), strict=True)
        return {self.classes[index]: value for index, value in pairs}


class CloudNetwork(Classifier):
    """A network that classifies scans of one thing each."""

    kind, also = "scan", "scene"
    size_label = "Points of the cloud"

    def __init__(self, title: str, predictor: Predictor, about: str = "") -> None:
        super().__init__(title, predictor.model, predictor.classes, about)
        self.predictor = predictor
        self.up = predictor.preprocessing.up
        self.sizes = _sizes(predictor.preprocessing.num_points, LARGEST_CLOUD)

    def prepare(self, source: Source, size: int, up: str | None = None) -> Any:
        """An even sample of the scan's points, moved and scaled as the network expects it."""
        data = source.content
        if source.is_upload:
            with as_file(source) as path:
                if path.suffix in SCENES:
                    with open_las(path) as reader:
                        check_number(path, reader.header.point_count)
                data = read_points(path, mesh_points=size, seed=self.predictor.seed)
        if len(data.pos) < FEWEST_POINTS:
            raise ValueError(
                f"{source.name} has {len(data.pos)} points, expected at least {FEWEST_POINTS}: "
                "fewer have no shape"
            )
        return self.predictor.fit(data, source.name, num_points=size, up=up)

    def draw_options(self) -> dict[str, Any]:
        """The axis that points up."""
        return {"up": self.up}


class PictureNetwork(Classifier):
    """A network of pictures, which takes what `config` says, as
    :func:`pointcluster.training.data_config` writes it."""

    kind = "picture"
    size_label = "Pixels along a side"

    def __init__(
        self, title: str, model: Any, classes: Sequence[str], about: str, config: Mapping[str, Any]
    ) -> None:
        super().__init__(title, model, classes, about)
        self.config = dict(config)
        self.sizes = _sizes(max(config["input_size"][1:]), LARGEST_PICTURE)

    def prepare(self, source: Source, size: int, up: str | None = None) -> Any:
        """The middle of the picture, scaled and normalised, as a tensor `[1, C, H, W]`."""
        image = source.content
        if source.is_upload:
            with as_file(source) as path:
                image = read_image(path)
        with installed_by("app"):
            from pointcluster.training import eval_transform

        channels, height, width = self.config["input_size"]
        scale = size / max(height, width)
        scaled = [channels, round(height * scale), round(width * scale)]
        image = image.convert("L" if channels == 1 else "RGB")
        return eval_transform(self.config | {"input_size": scaled})(image)[None]

    def draw_options(self) -> dict[str, Any]:
        """The normalisation, for drawing the picture as it was."""
        return {"mean": self.config["mean"], "std": self.config["std"]}


class SceneNetwork(Network):
    """A network that tells the class of every point of a scan; :mod:`.scene` runs it."""

    kind, also = "scene", "scan"
    up = "z"

    def __init__(self, title: str, segmenter: Segmenter, about: str = "") -> None:
        super().__init__(title, segmenter.model, segmenter.classes, about)
        self.segmenter = segmenter


def check_number(path: Path, count: int) -> None:
    """Refuse a scan of more points than there is room for.

    Raises:
        ValueError: It has more.
    """
    if count > LARGEST_SCENE:
        raise ValueError(
            f"{path} has {count:,} points, at most {LARGEST_SCENE:,} are taken here: python -m "
            "pointcluster.segment labels scans of any size"
        )


def _sizes(trained: int, largest: int) -> tuple[int, ...]:
    """The size that a network was trained on, and larger ones."""
    return (trained, *(trained * k for k in (2, 4, 8) if trained * k <= largest))
