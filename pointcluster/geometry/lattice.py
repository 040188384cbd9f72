"""The lattice: the geometry of a picture whose points fill a grid, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pointcluster.geometry.check import check_positive
from pointcluster.ops.launch import outside_transforms
from pointcluster.ops.regions import Regions
from pointcluster.ops.search.clouds import cloud_index


class LatticePlan(NamedTuple):
    """What to build for a stage of an image network."""

    kernel: int
    """Side of the square of points that an anchor gathers."""
    stride: int
    """Points from one anchor to the next."""
    padding: int
    """Points by which the outermost squares reach over the border; those count as zero."""
    fold: int
    """Regions along each axis."""
    centers: int
    """Centres along each axis of a region."""
    dilation: int = 1
    """Points from one place of the square to the next."""

    @property
    def reach(self) -> int:
        """Points that the square spans along each axis."""
        return self.dilation * (self.kernel - 1) + 1


class LatticePart(NamedTuple):
    """The regions of one shape; they lie together."""

    num_regions: int
    """Regions an image."""
    height: int
    """Points of a region along its first axis."""
    width: int
    """Points of a region along its second axis."""
    regions: Regions
    """Their centres' groupings, the same in all of them."""


class LatticeGeometry(NamedTuple):
    """Where the points of a lattice are clustered. They are stored region by region.

    Regions cut each axis as evenly as possible. A region's centres cut it as adaptive average
    pooling does: into windows of equal reach that overlap where the side is not divisible.
    """

    grid: tuple[int, int]
    """Points along each axis, (H, W)."""
    fold: tuple[int, int]
    """Regions along each axis, no more than points."""
    centers: int
    """Centres along each axis of a region."""
    order: Tensor | None
    """Row-major place of each stored point of one image; `None`: they are stored row by row. [n]"""
    parts: tuple[LatticePart, ...]
    """The regions, grouped by their shape: four groups at most, one where the fold divides."""

    @property
    def num_points(self) -> int:
        """Points of one image, n."""
        return self.grid[0] * self.grid[1]

    @property
    def num_centers(self) -> int:
        """Centres a region, M."""
        return self.centers**2

    def centers_of(self, batch_size: int) -> tuple[Tensor, Tensor]:
        r"""Number the regions of a batch, and find the point nearest to each window's middle.

        Shapes:
            - **output:** $(B \cdot n)$, the region of each stored point, and $(R \cdot M)$, the
              stored point that each centre sits on
        """
        sizes: list[int] = []
        middles = []
        start = 0
        device = self.parts[0].regions.group.device
        for part in self.parts:
            size = part.height * part.width
            rows = [(a + b - 1) // 2 for a, b in windows(part.height, self.centers)]
            cols = [(a + b - 1) // 2 for a, b in windows(part.width, self.centers)]
            middle = torch.tensor([r * part.width + c for r in rows for c in cols], device=device)
            first = torch.arange(part.num_regions, device=device) * size + start
            middles.append((first[:, None] + middle).flatten())
            sizes += [size] * part.num_regions
            start += size * part.num_regions
        region, center = cloud_index(sizes, device), torch.cat(middles)
        image = torch.arange(batch_size, device=device)[:, None]
        region = image * len(sizes) + region
        return region.flatten(), (image * self.num_points + center).flatten()

    def from_rows(self, x: Tensor) -> Tensor:
        r"""Store a map region by region.

        Shapes:
            - **x:** $(B, H, W, C)$
            - **output:** $(B \cdot n, C)$
        """
        (h, w), (fh, fw) = self.grid, self.fold
        if self.order is None:
            return x.reshape(-1, x.size(3))
        if len(self.parts) > 1:
            return x.reshape(-1, h * w, x.size(3))[:, self.order].flatten(0, 1)
        x = x.view(-1, fh, h // fh, fw, w // fw, x.size(3)).transpose(2, 3)
        return x.reshape(-1, x.size(5))

    def to_rows(self, x: Tensor) -> Tensor:
        r"""Lay stored points out as a map again.

        Shapes:
            - **x:** $(B \cdot n, C)$
            - **output:** $(B, H, W, C)$
        """
        (h, w), (fh, fw) = self.grid, self.fold
        if self.order is None:
            return x.view(-1, h, w, x.size(1))
        if len(self.parts) > 1:
            back = self.order.argsort()
            return x.view(-1, h * w, x.size(1))[:, back].view(-1, h, w, x.size(1))
        x = x.view(-1, fh, fw, h // fh, w // fw, x.size(1)).transpose(2, 3)
        return x.reshape(-1, h, w, x.size(5))


class LatticeStage(NamedTuple):
    """One stage: how its points come from those of a lattice before, and their clusters."""

    before: LatticeGeometry
    """The lattice before, of which only grid and order count."""
    plan: LatticePlan
    """Kernel, stride, padding and dilation."""
    clusters: LatticeGeometry
    """The stage's own lattice."""


def reduced(size: int, plan: LatticePlan) -> int:
    r"""Points along an axis after a reducer: as a convolution has it, and so many that each point
    is gathered, with $k$ for what the square spans,

    $$ \max\Big(\Big\lfloor \frac{n + 2p - k}{s} \Big\rfloor,
       \Big\lceil \frac{n + p - k}{s} \Big\rceil\Big) + 1. $$

    Where the stride does not divide an axis, the last anchor's square reaches over its end, and
    holds zeros there, as at a padded border.
    """
    inside = (size + 2 * plan.padding - plan.reach) // plan.stride
    reached = -(-(size + plan.padding - plan.reach) // plan.stride)
    return max(0, inside, reached) + 1


def overhang(size: int, plan: LatticePlan) -> int:
    """Zeros to add at the end of an axis, beside the padding, so that all squares are whole."""
    last = (reduced(size, plan) - 1) * plan.stride + plan.reach - 2 * plan.padding
    return max(0, last - size)


def bounds(size: int, parts: int) -> list[int]:
    """Where `parts` regions of as equal a size as possible begin, and where the last one ends."""
    return [i * size // parts for i in range(parts + 1)]


def windows(size: int, parts: int) -> list[tuple[int, int]]:
    """First and last place plus one of the windows of adaptive average pooling."""
    return [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


@outside_transforms
def lattice_geometry(
    grid: tuple[int, int],
    *,
    fold: int = 1,
    centers: int = 2,
    device: torch.device | str = "cpu",
) -> LatticeGeometry:
    """Work out regions, centres and groupings of a lattice; the last ones are remembered.

    Args:
        grid: Points along each axis, (H, W).
        fold: Regions along each axis; no more than it has points.
        centers: Centres along each axis of a region.
        device: Where the tensors shall be.

    Raises:
        TypeError, ValueError: A number is not positive.
    """
    height, width = grid
    for name, value in [("height", height), ("width", width), ("fold", fold), ("centers", centers)]:
        check_positive(name, value)
    # What is made while somebody traces, or only pretends to make tensors, is not for others.
    traced = torch.compiler.is_compiling() or type(torch.empty(0, device=device)) is not Tensor
    build = _build if traced else _remembered
    return build(height, width, fold, centers, torch.device(device))


def _build(h: int, w: int, fold: int, centers: int, device: torch.device) -> LatticeGeometry:
    # Plain numbers until the end: this may be traced, where tensors' values are not known.
    rows, cols = bounds(h, min(fold, h)), bounds(w, min(fold, w))
    shapes: dict[tuple[int, int], list[int]] = {}
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            region = [r * w + c for r in range(top, bottom) for c in range(left, right)]
            shapes.setdefault((bottom - top, right - left), []).extend(region)
    parts = []
    for (height, width), places in shapes.items():
        size = height * width
        boxes = [(i, j) for i in windows(height, centers) for j in windows(width, centers)]
        closed = [box in boxes[:m] for m, box in enumerate(boxes)]
        inside = [[r * width + c for r in range(*i) for c in range(*j)] for i, j in boxes]
        filled = [len(places) for places in inside]
        pool = torch.zeros(1, len(boxes), height, width, device=device)
        for m, ((top, bottom), (left, right)) in enumerate(boxes):
            pool[0, m, top:bottom, left:right] = 1
        group = [places + places[:1] * (max(filled) - len(places)) for places in inside]
        regions = Regions(
            group=torch.tensor([group], device=device),
            filled=torch.tensor([filled], device=device),
            closed=torch.tensor([closed], device=device) if any(closed) else None,
            size=size,
            pool=pool.flatten(2),
        )
        parts.append(LatticePart(len(places) // size, height, width, regions))
    one = len(rows) == 2 and len(cols) == 2
    places = [place for each in shapes.values() for place in each]
    order = None if one else torch.tensor(places, device=device)
    return LatticeGeometry((h, w), (len(rows) - 1, len(cols) - 1), centers, order, tuple(parts))


@lru_cache(maxsize=256)
def _remembered(h: int, w: int, fold: int, centers: int, device: torch.device) -> LatticeGeometry:
    with torch.inference_mode(False):  # whoever asks first: training may ask next
        return _build(h, w, fold, centers, device)


def lattice_hierarchy(
    grid: tuple[int, int],
    plans: Sequence[LatticePlan],
    *,
    device: torch.device | str = "cpu",
) -> tuple[LatticeStage, ...]:
    """The geometry of all stages of an image network for images of one size.

    Raises:
        TypeError, ValueError: A number is not positive.
    """
    before = lattice_geometry(grid, device=device)
    stages = []
    for plan in plans:
        height, width = (reduced(size, plan) for size in before.grid)
        clusters = lattice_geometry(
            (height, width), fold=plan.fold, centers=plan.centers, device=device
        )
        stages.append(LatticeStage(before, plan, clusters))
        before = clusters
    return tuple(stages)


def lattice_positions(
    grid: tuple[int, int],
    position: str = "published",
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    r"""Positions of a picture's pixels, row by row, the rows' coordinate first.

    `"published"`: $i / (H - 1) - 0.5$, so that the outermost pixels lie at $\pm 0.5$ (and at 0
    where an axis has one pixel); `"pixel"`: the pixel's centre, $(i + 0.5) / H - 0.5$.

    Shapes:
        - **output:** $(H \cdot W, 2)$

    Raises:
        ValueError: There is no such convention.
    """
    if position not in ("published", "pixel"):
        raise ValueError(f"position must be 'published' or 'pixel', found {position!r}")
    axes = []
    for size in grid:
        place = torch.arange(size, dtype=dtype, device=device).to(
            dtype or torch.get_default_dtype()
        )
        if position == "pixel":
            axes.append((place + 0.5) / size - 0.5)
        else:
            axes.append(place / (size - 1) - 0.5 if size > 1 else place)
    rows, cols = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([rows.flatten(), cols.flatten()], dim=1)
