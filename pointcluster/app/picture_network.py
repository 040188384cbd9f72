"""Networks of pictures on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pointcluster._optional import installed_by
from pointcluster.app.network import Network, UnpackedFile
from pointcluster.app.source import Source
from pointcluster.datasets import read_image

_LARGEST = 448


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
        self.sizes = (own, *(own * k for k in (2, 4, 8) if own * k <= _LARGEST))

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
