"""Take a block out of an image."""

from __future__ import annotations

import math

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pointcluster.transforms.subset import drawn_from, grid_of, keep_points


class MaskedBlock(BaseTransform):
    """Takes one rectangular block out of a picture, at a random place.

    The block has about the picture's own aspect ratio and lies inside it.

    Args:
        share: Part of the pixels that is *kept*, as for :class:`RandomPixels`; the block is the
            rest, as nearly as a rectangle can be. At least one pixel is kept.
        seed: As for :class:`RandomPixels`.

    Shapes and units:
        Needs ``grid``, from :class:`ImageToPoints`. Every tensor whose first dimension is the
        number of points is cut. ``grid`` becomes ``extent``, with the same ``(H, W)``: the size of
        the picture that the points come from.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1, or the points are not a whole picture.
    """

    def __init__(self, share: float, *, seed: int | None = None) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}, expected above 0 and at most 1")
        self.share, self.seed = share, seed

    def forward(self, data: Data) -> Data:
        height, width = grid_of(data, "MaskedBlock")
        rows, cols = block_sides(height, width, 1 - self.share)
        generator = drawn_from(data, self.seed)
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - cols + 1, (), generator=generator))
        kept = torch.ones(height, width, dtype=torch.bool)
        kept[top : top + rows, left : left + cols] = False
        return keep_points(data, kept.flatten().nonzero().squeeze(1))

    def __repr__(self) -> str:
        return f"MaskedBlock({self.share}, seed={self.seed})"


def block_sides(height: int, width: int, share: float) -> tuple[int, int]:
    """Sides of a block that covers a share of a picture, but never all of it."""
    area = min(round(share * height * width), height * width - 1)
    if area < 1:
        return 0, 0
    # First the shorter side, whose rounding weighs more, then the longer one to match the area.
    short, long = sorted((height, width))
    a = min(short, max(1, round(short * math.sqrt(share))))
    b = min(long, max(1, round(area / a)))
    if a * b == short * long:
        b -= 1
    if b == 0:
        return 0, 0
    return (a, b) if height <= width else (b, a)
