"""Normals as input features."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class NormalsAsFeatures(BaseTransform):
    """Appends ``data.normal`` to the point features ``data.x``.

    Put it last: transforms that turn or stretch a cloud keep ``normal`` right, not ``x``.

    Shapes and units:
        ``x [P, F]`` or none becomes ``x [P, F + 3]``.

    Raises:
        ValueError: The cloud has no normals.
    """

    def forward(self, data: Data) -> Data:
        normal = data.get("normal")
        if normal is None:
            raise ValueError("the cloud has no attribute 'normal': this data set comes without")
        data.x = normal if data.x is None else torch.cat([data.x, normal], dim=-1)
        return data

    def __repr__(self) -> str:
        return "NormalsAsFeatures()"
