"""Turn a cloud about its up axis, normals included."""

from __future__ import annotations

import math

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class RandomRotateUp(BaseTransform):
    """Turns positions and normals by one random angle about one axis.

    ``torch_geometric.transforms.RandomRotate`` turns the positions alone.

    Args:
        degrees: The angle is drawn uniformly from ``[-degrees, degrees]``.
        axis: The axis that stays; 1 is up in ModelNet40 and HomeObjects.
    """

    def __init__(self, degrees: float = 180.0, axis: int = 1) -> None:
        if axis not in (0, 1, 2):
            raise ValueError(f"axis is {axis}, expected 0, 1 or 2")
        self.degrees, self.axis = degrees, axis

    def forward(self, data: Data) -> Data:
        angle = math.radians(self.degrees) * (2 * torch.rand(()).item() - 1)
        a, b = (self.axis + 1) % 3, (self.axis + 2) % 3
        turn = torch.eye(3, dtype=data.pos.dtype, device=data.pos.device)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[b, a] = math.sin(angle)
        turn[a, b] = -turn[b, a]
        data.pos = data.pos @ turn.T
        if data.get("normal") is not None:
            data.normal = data.normal @ turn.T
        return data

    def __repr__(self) -> str:
        return f"RandomRotateUp({self.degrees}, axis={self.axis})"
