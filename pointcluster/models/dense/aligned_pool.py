"""Regions of a pyramid, pooled where the pixels' centres are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pointcluster._optional import installed_by


class AlignedPool(nn.Module):
    r"""Features of regions from a pyramid, sampled where the pixels' centres are.

    A region of area $a$ is looked up on the level $\lfloor 4 + \log_2(\sqrt{a} / 224) \rfloor$,
    counted in doublings of the pixels between two of its points. ("RoIAlign" of "Mask R-CNN", with
    the half-pixel that torchvision's own pooling leaves out for older weights' sake.)

    Args:
        names: The levels' names.
        strides: Pixels from a point of each level to the next.
        size: Points of the output along each axis.
        samples: Samples of each of these along an axis; 0: as many as a bin has points.

    Raises:
        ValueError: The strides are no powers of 2, each twice the one before.
    """

    def __init__(
        self, names: Sequence[str], strides: Sequence[int], size: int, samples: int = 0
    ) -> None:
        super().__init__()
        with installed_by("image"):
            from torchvision.ops.poolers import LevelMapper
        doubled = [strides[0] << level for level in range(len(strides))]
        if list(strides) != doubled or strides[0] & (strides[0] - 1):
            raise ValueError(
                "regions are looked up on levels whose strides are powers of 2, each twice the one "
                f"before, found {list(strides)}"
            )
        self.names, self.strides = list(names), list(strides)
        self.featmap_names, self.output_size = self.names, (size, size)  # torchvision's names
        self.samples = samples
        first, last = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
        self.level_of = LevelMapper(first, last)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], _: Any = None) -> Tensor:
        """A map $(C, s, s)$ of each region, picture by picture."""
        from torchvision.ops import roi_align

        like = maps[self.names[0]]
        level, regions = self.level_of(boxes), torch.cat(boxes)
        picture = [regions.new_full((len(each), 1), i) for i, each in enumerate(boxes)]
        regions = torch.cat([torch.cat(picture), regions], dim=1)
        pooled = like.new_zeros(len(regions), like.size(1), *self.output_size)
        pool = pooled_on_cpu if _on_cpu(like) else roi_align
        for number, (name, stride) in enumerate(zip(self.names, self.strides, strict=True)):
            here = (level == number).nonzero()[:, 0]
            if pool is pooled_on_cpu and not len(here):
                continue
            found = pool(
                maps[name], regions[here], self.output_size, 1 / stride, self.samples, aligned=True
            )
            pooled = pooled.index_copy(0, here, found.to(pooled.dtype))
        return pooled


def _on_cpu(maps: Tensor) -> bool:
    """Whether plain numbers are at hand, and nobody asks for gradients."""
    plain = maps.device.type == "cpu" and maps.dtype in (torch.float32, torch.float64)
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing() or maps.requires_grad
    return plain and not watched


def pooled_on_cpu(
    maps: Tensor,
    regions: Tensor,
    size: tuple[int, int],
    scale: float,
    samples: int,
    *,
    aligned: bool = True,
) -> Tensor:
    r"""What torchvision's `roi_align` answers, as two matrix products a region.

    A bin is the mean of samples that lie on a grid, and a sample is linear along both axes: with
    weights $W$ of each axis, $y_{ij} = \sum_{hw} W^y_{ih} W^x_{jw} x_{hw}$. With many samples a bin
    that takes a quarter of the time, on all cores.

    Args:
        maps: Maps of pictures. $(B, C, H, W)$
        regions: A picture's number and (x1, y1, x2, y2). $(R, 5)$
        size: Bins along both axes.
        scale: Points of the map a pixel.
        samples: Samples of each bin along an axis; 0: as many as it has points.
        aligned: Half a point is taken off, as always here.

    Returns:
        The bins' means. $(R, C, *size)$
    """
    rows = maps.permute(0, 2, 3, 1).contiguous()  # [B, H, W, C]
    down = _weights(regions[:, (2, 4)] * scale, rows.size(1), size[0], samples)
    across = _weights(regions[:, (1, 3)] * scale, rows.size(2), size[1], samples)
    pooled = rows.new_empty(len(regions), *size, rows.size(3))  # [R, s, s, C]
    numbers = zip(regions[:, 0].long().tolist(), *down[1:], *across[1:], strict=True)
    for r, (picture, top, height, left, width) in enumerate(numbers):
        part = rows[picture, top : top + height, left : left + width]  # [h, w, C]
        strips = torch.mm(down[0][r, :, :height], part.flatten(1))  # [s, w * C]
        torch.matmul(across[0][r, :, :width], strips.view(size[0], width, -1), out=pooled[r])
    return pooled.permute(0, 3, 1, 2)


def _weights(
    ends: Tensor, length: int, bins: int, samples: int
) -> tuple[Tensor, list[int], list[int]]:
    """How much each point of an axis counts in each bin of each region.

    Args:
        ends: Where regions begin and end, in points. [R, 2]
        length: Points of the axis.
        bins: Bins of a region.
        samples: Samples of a bin; 0: as many as it has points.

    Returns:
        Weights [R, bins, n] of the points from the first one on that counts, this first one, and
        how many count.
    """
    start, end = (ends - 0.5).split(1, dim=1)  # [R, 1]
    side = (end - start) / bins
    counts = torch.full_like(side, samples) if samples else side.ceil()
    number = torch.arange(max(1, int(counts.max())), dtype=ends.dtype)  # [g]
    share = (number + 0.5) / counts.clamp(min=1)  # [R, g]
    bin_start = start + side * torch.arange(bins, dtype=ends.dtype)  # [R, bins]
    place = bin_start[..., None] + (side * share)[:, None]  # [R, bins, g]
    there = (number < counts)[:, None]  # [R, 1, g]
    # Samples beyond the map count for nothing, those less than a point beyond as its last point.
    weight = (there & (place >= -1) & (place <= length)) / counts.clamp(min=1)[..., None]
    place = torch.where(there, place, place[..., :1]).clamp(0, length - 1)
    low = place.floor()
    part, low = place - low, low.long()
    high = (low + 1).clamp(max=length - 1)
    first = low.flatten(1).amin(1)
    wide = high.flatten(1).amax(1) - first + 1
    full = place.new_zeros(len(ends), bins, int(wide.max()))
    full.scatter_add_(2, low - first[:, None, None], weight * (1 - part))
    full.scatter_add_(2, high - first[:, None, None], weight * part)
    return full, first.tolist(), wide.tolist()
