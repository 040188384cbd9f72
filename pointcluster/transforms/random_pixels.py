"""Keep some pixels of an image, or some points of a cloud."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pointcluster.transforms.subset import drawn_from, keep_points, points_of


class RandomPixels(BaseTransform):
    """Keeps a random share of the points, in their order, each as likely as any other.

    ``torch_geometric.transforms.FixedPoints`` keeps a number instead of a share and mixes the
    order.

    Args:
        share: Part of the points that is kept, rounded to whole points and to at least one.
        seed: ``None`` draws from PyTorch's generator, another subset each time. A number draws
            from it and from the picture's own values: the same picture loses the same points in
            every epoch, in every worker and in any order, which is what evaluation needs.

    Shapes and units:
        Every tensor whose first dimension is the number of points is cut. ``grid`` becomes
        ``extent``, with the same ``(H, W)``: the size of the picture that the points come from.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1, there is no point, or the points are of
            a batch.
    """

    def __init__(self, share: float, *, seed: int | None = None) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}, expected above 0 and at most 1")
        self.share, self.seed = share, seed

    def forward(self, data: Data) -> Data:
        size = points_of(data, "RandomPixels")
        order = torch.randperm(size, generator=drawn_from(data, self.seed))
        kept = order[: max(1, round(self.share * size))].sort().values
        return keep_points(data, kept)

    def __repr__(self) -> str:
        return f"RandomPixels({self.share}, seed={self.seed})"
