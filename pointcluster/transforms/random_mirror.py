"""Mirror a cloud, normals included."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class RandomMirror(BaseTransform):
    """Mirrors positions and normals along one axis, or leaves them.

    ``torch_geometric.transforms.RandomFlip`` mirrors the positions alone.

    Args:
        axis: The axis whose sign changes; 0 is left and right in ModelNet40 and HomeObjects.
        p: How often.
    """

    def __init__(self, axis: int = 0, p: float = 0.5) -> None:
        if axis not in (0, 1, 2):
            raise ValueError(f"axis is {axis}, expected 0, 1 or 2")
        if not 0 <= p <= 1:
            raise ValueError(f"p is {p}, expected 0 to 1")
        self.axis, self.p = axis, p

    def forward(self, data: Data) -> Data:
        if torch.rand(()).item() >= self.p:
            return data
        sign = torch.ones(3, dtype=data.pos.dtype, device=data.pos.device)
        sign[self.axis] = -1
        data.pos = data.pos * sign
        if data.get("normal") is not None:
            data.normal = data.normal * sign
        return data

    def __repr__(self) -> str:
        return f"RandomMirror(axis={self.axis}, p={self.p})"
