"""A network that the page offers, whatever it was trained on."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster._optional import installed_by
from pointcluster.app.source import Source
from pointcluster.datasets import read_image, read_points
from pointcluster.predict import Predictor

LARGEST_CLOUD = 8192
FEWEST_POINTS = 4
LARGEST_PICTURE = 448


class Network(ABC):
    """A trained network with its classes and its preprocessing; nothing in it ever changes, so
    that all users share it.

    Args:
        title: What it is called.
        model: The network, in evaluation mode.
        classes: Their names, in order.
        about: What it was trained on and how well it does, in a few words.
    """

    kind: str
    """What it takes: `"picture"` or `"scan"`."""
    size_label: str
    """What its sizes count."""
    up: str = ""
    """The axis that points up in what it was trained on; of pictures none."""
    sizes: tuple[int, ...]
    """Sizes of inputs to choose from; the first is the one that it was trained on."""

    def __init__(self, title: str, model: Any, classes: Sequence[str], about: str = "") -> None:
        self.title, self.model, self.about = title, model.eval(), about
        self.classes = tuple(name.replace("_", " ") for name in classes)

    @abstractmethod
    def prepare(self, source: Source, size: int, up: str | None = None) -> Tensor | Data:
        """What the network takes of a picture or a scan.

        Args:
            source: The picture or scan.
            size: One of its sizes.
            up: The axis that points up in a scan, where it is not the network's own.

        Raises:
            ImportError: A package that reads it is not installed.
            ValueError: It is damaged or does not fit the network.
        """

    @abstractmethod
    def draw_options(self) -> dict[str, Any]:
        """What the drawing functions need to know beside the prepared input."""

    @torch.inference_mode()
    def classify(self, data: Tensor | Data) -> dict[str, float]:
        """The probability of every class, the likeliest first."""
        logits = self.model(data)[0].double()
        probability, order = logits.softmax(dim=0).sort(descending=True, stable=True)
        pairs = zip(order.tolist(), probability.tolist(), strict=True)
        return {self.classes[index]: value for index, value in pairs}


class CloudNetwork(Network):
    """A network of clouds.

    Args:
        title: What it is called.
        predictor: The network, its classes and its preprocessing.
        about: A few words on it.
    """

    kind = "scan"
    size_label = "Points of the cloud"

    def __init__(self, title: str, predictor: Predictor, about: str = "") -> None:
        super().__init__(title, predictor.model, predictor.classes, about)
        self.predictor = predictor
        self.up = predictor.preprocessing.up
        own = predictor.preprocessing.num_points
        self.sizes = (own, *(own * k for k in (2, 4, 8) if own * k <= LARGEST_CLOUD))

    def prepare(self, source: Source, size: int, up: str | None = None) -> Tensor | Data:
        """An even sample of the scan's points, moved and scaled as the network expects it."""
        if source.kind != "scan":
            raise ValueError(f"{source.name} is a picture, and {self.title} takes scans")
        data = source.content
        if isinstance(data, bytes):
            with UnpackedFile(source) as path:
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


class PictureNetwork(Network):
    """A network of pictures.

    Args:
        title: What it is called.
        model: The network.
        classes: Their names, in order.
        about: A few words on it.
        config: What it takes, as :func:`pointcluster.training.data_config` says it.
    """

    kind = "picture"
    size_label = "Pixels along a side"

    def __init__(
        self,
        title: str,
        model: Any,
        classes: Sequence[str],
        about: str = "",
        *,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(title, model, classes, about)
        self.config = dict(config)
        own = max(config["input_size"][1:])
        self.sizes = (own, *(own * k for k in (2, 4, 8) if own * k <= LARGEST_PICTURE))

    def prepare(self, source: Source, size: int, up: str | None = None) -> Tensor | Data:
        """The middle of the picture, scaled and normalised, as a tensor `[1, C, H, W]`."""
        if source.kind != "picture":
            raise ValueError(f"{source.name} is a scan, and {self.title} takes pictures")
        image = source.content
        if isinstance(image, bytes):
            with UnpackedFile(source) as path:
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


class UnpackedFile:
    """The bytes of an upload as a file of their own, for the readers that take a path.

    It lies in an empty folder, so that no reader finds another file beside it, and is gone when the
    block is left. A :class:`ValueError` from inside names it as the user does.

    Args:
        source: The upload.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="pointcluster-")
        suffix = Path(self.source.name).suffix.lower()
        self._path = Path(self._folder.name) / f"upload{suffix}"
        self._path.write_bytes(self.source.content)
        return self._path

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._folder.cleanup()
        if isinstance(error, ValueError):
            raise ValueError(str(error).replace(str(self._path), self.source.name)) from error
        if isinstance(error, MemoryError):
            raise ValueError(f"{self.source.name} would take too much memory") from error
