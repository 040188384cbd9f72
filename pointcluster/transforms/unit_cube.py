"""Centre a cloud and scale it to a cube."""

from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class UnitCube(BaseTransform):
    """Moves the points' mean to the origin, and scales them into the cube from -1 to 1.

    As ``torch_geometric.transforms.NormalizeScale`` does, to the last bit; but points that coincide
    come to lie at the origin, where it divides by zero, and a cloud may be empty.

    Shapes and units:
        Changes ``pos`` ``[N, D]``.
    """

    def forward(self, data: Data) -> Data:
        if not data.pos.size(0):
            return data
        pos = data.pos - data.pos.mean(dim=-2, keepdim=True)
        reach = pos.abs().max()
        data.pos = pos * (1.0 / reach * 0.999999) if reach > 0 else pos
        return data

    def __repr__(self) -> str:
        return "UnitCube()"
