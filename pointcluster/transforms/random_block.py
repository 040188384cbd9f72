"""Cut a block from a scene at random."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pointcluster.transforms.clouds import cut_points


class RandomBlock(BaseTransform):
    """The points around a random one, seen from above: a disc of so many points, at full height.

    Positions are from the middle point on. With ``drop`` a random share of the scene's points is
    left out before, from none to that, so that a network learns other densities.

    Args:
        num_points: Points of the block; a scene with fewer is taken whole.
        balanced: How often the middle is a point of a class drawn evenly from those that the scene
            has, and not any point.
        drop: The largest share left out.

    Shapes and units:
        ``pos`` ``[N, D]``, ``D >= 2``, and all else with an entry a point are cut to
        ``[num_points, ...]``, in the scene's order.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, num_points: int, *, balanced: float = 0.0, drop: float = 0.0) -> None:
        if num_points < 1:
            raise ValueError(f"num_points is {num_points}, expected at least 1")
        if not 0 <= balanced <= 1 or not 0 <= drop < 1:
            raise ValueError(
                f"expected balanced from 0 to 1 and drop below 1, found {balanced} and {drop}"
            )
        self.num_points, self.balanced, self.drop = num_points, balanced, drop

    def forward(self, data: Data) -> Data:
        pos, size = data.pos, len(data.pos)
        middle = pos[self._middle(data)]
        share = self.drop * float(torch.rand(()))
        wanted = min(size, round(self.num_points / (1 - share)))
        square = (pos[:, :2] - middle[:2]).square().sum(dim=1)
        near = square.topk(wanted, largest=False, sorted=False).indices
        near = near[torch.randperm(wanted)[: self.num_points]].sort().values
        data = cut_points(data, near)
        data.pos = data.pos - middle
        return data

    def _middle(self, data: Data) -> int:
        if data.get("y") is not None and float(torch.rand(())) < self.balanced:
            there = data.y[data.y >= 0].unique()
            if len(there):
                chosen = there[torch.randint(len(there), ())]
                members = (data.y == chosen).nonzero()[:, 0]
                return int(members[torch.randint(len(members), ())])
        return int(torch.randint(len(data.pos), ()))

    def __repr__(self) -> str:
        return f"RandomBlock({self.num_points}, balanced={self.balanced}, drop={self.drop})"
