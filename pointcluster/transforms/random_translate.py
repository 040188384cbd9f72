"""Move a whole cloud."""

from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class RandomTranslate(BaseTransform):
    """Moves all points of a cloud by one random vector.

    ``torch_geometric.transforms.RandomJitter`` moves every point by another one.

    Args:
        distance: Each component is drawn uniformly from ``[-distance, distance]``.
    """

    def __init__(self, distance: float = 0.1) -> None:
        if distance < 0:
            raise ValueError(f"distance is {distance}, expected at least 0")
        self.distance = distance

    def forward(self, data: Data) -> Data:
        shift = data.pos.new_empty(data.pos.size(-1)).uniform_(-self.distance, self.distance)
        data.pos = data.pos + shift
        return data

    def __repr__(self) -> str:
        return f"RandomTranslate({self.distance})"
