"""Keep the first points of a cloud."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform


class FirstPoints(BaseTransform):
    """Keeps the first points of a cloud, so that evaluation sees the same ones each time.

    The random counterpart for training is
    ``torch_geometric.transforms.FixedPoints(num, replace=False)``.

    Args:
        num: Points to keep; a smaller cloud stays as it is.

    Shapes and units:
        Every tensor whose first dimension is the number of points is cut to ``[num, ...]``.
    """

    def __init__(self, num: int) -> None:
        if num < 1:
            raise ValueError(f"num is {num}, expected at least 1")
        self.num = num

    def forward(self, data: Data) -> Data:
        size = data.pos.size(0)
        for key, value in data.to_dict().items():
            # In a cloud of one point, a label [1] looks like a value per point: cut neither.
            if isinstance(value, Tensor) and value.dim() and value.size(0) == size > 1:
                data[key] = value[: self.num]
        return data

    def __repr__(self) -> str:
        return f"FirstPoints({self.num})"
