"""Stretch a cloud by another random factor along each axis."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class RandomAnisotropicScale(BaseTransform):
    r"""Stretches positions by a factor per axis, and turns normals as the surface turns.

    .. math:: p' = S p, \quad n' = S^{-1} n / \lVert S^{-1} n \rVert

    ``torch_geometric.transforms.RandomScale`` has one factor for all axes.

    Args:
        low: Smallest factor.
        high: Largest factor; each is drawn uniformly.
    """

    def __init__(self, low: float = 0.8, high: float = 1.25) -> None:
        if not 0 < low <= high:
            raise ValueError(f"factors go from {low} to {high}, expected 0 < low <= high")
        self.low, self.high = low, high

    def forward(self, data: Data) -> Data:
        scale = data.pos.new_empty(data.pos.size(-1)).uniform_(self.low, self.high)
        data.pos = data.pos * scale
        if data.get("normal") is not None:
            data.normal = torch.nn.functional.normalize(data.normal / scale, dim=-1)
        return data

    def __repr__(self) -> str:
        return f"RandomAnisotropicScale({self.low}, {self.high})"
