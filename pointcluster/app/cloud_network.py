"""Networks of clouds on the page."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pointcluster.app.network import Network, UnpackedFile
from pointcluster.app.source import Source
from pointcluster.datasets import read_points
from pointcluster.predict import Predictor

_LARGEST = 8192
_FEWEST = 4


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
        self.sizes = (own, *(own * k for k in (2, 4, 8) if own * k <= _LARGEST))

    def prepare(self, source: Source, size: int, up: str | None = None) -> Tensor | Data:
        """An even sample of the scan's points, moved and scaled as the network expects it."""
        if source.kind != "scan":
            raise ValueError(f"{source.name} is a picture, and {self.title} takes scans")
        data = source.content
        if isinstance(data, bytes):
            with UnpackedFile(source) as path:
                data = read_points(path, mesh_points=size, seed=self.predictor.seed)
        if len(data.pos) < _FEWEST:
            raise ValueError(
                f"{source.name} has {len(data.pos)} points, expected at least {_FEWEST}: "
                "fewer have no shape"
            )
        return self.predictor.fit(data, source.name, num_points=size, up=up)

    def draw_options(self) -> dict[str, Any]:
        """The axis that points up."""
        return {"up": self.up}
