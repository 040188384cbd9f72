"""One picture or cloud of the data, as it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.geometry.pixels import picture_sizes
from pointcluster.models.results import place


class Subject(NamedTuple):
    """What is drawn: a picture with the points that its pixels show, or a cloud."""

    pos: np.ndarray
    """Positions of its points, of a picture in pixels (row, column). [n, D]"""
    first: int
    """Number of its first point among all points of the data."""
    total: int
    """Points of the data."""
    color: np.ndarray | None = None
    """The points' own colours, from 0 to 1; clouds may have none. [n, 3]"""
    shows: np.ndarray | None = None
    """The point that each pixel of a picture shows; -1: none. [H, W]"""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        if self.shows is None:
            raise ValueError("a cloud has no size in pixels")
        return self.shows.shape

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, and not a cloud."""
        return self.shows is not None


def subject_of(
    data: Tensor | Data,
    cloud: int = 0,
    *,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Subject:
    """Take one picture or cloud out of the data.

    A picture's normalisation is undone by `mean` and `std`. Values that then go beyond 0 to 1 are
    stretched to it; other numbers of channels than 1 and 3 become grey. Each pixel shows the point
    that lies in it; points that lie between pixels, such as centroids of superpixels, are shown
    around them.

    Args:
        data: Pictures ``[C, H, W]`` or ``[B, C, H, W]``, or PyG Data or Batch of points, as a
            network takes them.
        cloud: Which picture or cloud; negative ones count from the end.
        mean: Of each channel, or of all.
        std: Of each channel, or of all.

    Raises:
        IndexError: There is no such picture or cloud.
        TypeError, ValueError: The data are none, or the normalisation does not fit them.
    """
    if isinstance(data, Tensor):
        return _of_tensor(data, cloud, mean, std)
    if not isinstance(data, Data):
        raise TypeError(
            f"expected a tensor of pictures, or PyG Data or Batch, found {type(data).__name__}"
        )
    pos, x = data.pos, data.x
    if not isinstance(pos, Tensor) or pos.dim() != 2 or pos.size(1) not in (2, 3):
        found = list(pos.shape) if isinstance(pos, Tensor) else type(pos).__name__
        raise ValueError(f"positions [N, 2] or [N, 3] can be drawn, found {found}")
    counts = _points_of_clouds(data)
    cloud = place("cloud", cloud, len(counts))
    if not counts[cloud]:
        raise ValueError(f"cloud {cloud} has no points to draw")
    points = slice(sum(counts[:cloud]), sum(counts[: cloud + 1]))
    where = pos[points].detach().cpu().double().numpy()
    if not np.isfinite(where).all():
        raise ValueError("a position is NaN or infinite")
    name = next((key for key in ("grid", "extent") if data.get(key) is not None), None)
    if name is None:
        if mean is not None or std is not None:
            raise ValueError("mean and std undo the normalisation of pictures; these are clouds")
        return Subject(where, points.start, len(pos), color=_own_colours(data, points))
    if not isinstance(x, Tensor) or x.dim() != 2 or len(x) != len(pos):
        shape = list(x.shape) if isinstance(x, Tensor) else None
        raise ValueError(f"a picture's points have colours x [{len(pos)}, C], found {shape}")
    sizes = picture_sizes(name, data.get(name))
    if len(sizes) != len(counts):
        raise ValueError(f"{name} holds {len(sizes)} sizes, the data {len(counts)} pictures")
    colours = _colours(x[points].t(), mean, std)
    where, shows = _on_pixels(where, np.array(sizes[cloud]))
    return Subject(where, points.start, len(pos), colours, shows)


def _points_of_clouds(data: Data) -> list[int]:
    """How many points each cloud has."""
    if data.batch is not None:
        count = getattr(data, "num_graphs", None) or int(data.batch.max()) + 1
        return torch.bincount(data.batch, minlength=count).tolist()
    grid = data.get("grid")
    grids = [] if grid is None else picture_sizes("grid", grid)
    return [h * w for h, w in grids] if len(grids) > 1 else [len(data.pos)]


def _of_tensor(data: Tensor, cloud: int, mean: Any, std: Any) -> Subject:
    if data.dim() == 3:
        data = data[None]
    if data.dim() != 4 or 0 in data.shape:
        raise ValueError(
            f"pictures are tensors [C, H, W] or [B, C, H, W], found {list(data.shape)}"
        )
    if not data.is_floating_point():
        raise TypeError(f"pictures must be floating numbers, found {data.dtype}: scale them")
    number = place("cloud", cloud, len(data))
    colours = _colours(data[number].flatten(1), mean, std)
    shows = np.arange(len(colours)).reshape(data.shape[2:])
    pos = np.argwhere(shows >= 0).astype(np.float64)
    return Subject(pos, number * len(pos), len(data) * len(pos), colours, shows)


def _on_pixels(pos: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points are in pixels [n, 2], and the point that each pixel shows. [H, W]"""
    from scipy.spatial import cKDTree

    # One formula for both conventions of positions: they differ by less than half a pixel.
    where = (pos + 0.5) * (size - 1)
    if any(np.abs(at - np.rint(at)).max() < 0.01 for at in (where, (pos + 0.5) * size - 0.5)):
        cell = np.clip(np.rint(where), 0, size - 1).astype(np.int64)
        shows = np.full(size, -1)
        shows[cell[::-1, 0], cell[::-1, 1]] = np.arange(len(pos))[::-1]  # the first of several
        return where, shows
    pixels = np.argwhere(np.ones(size))
    return where, cKDTree(where).query(pixels)[1].reshape(size)


def _colours(values: Tensor, mean: Any, std: Any) -> np.ndarray:
    """Red, green and blue from 0 to 1, of channels by points. [n, 3]"""
    values = values.detach().cpu().double()
    channels = len(values)
    mean, std = _of_channels("mean", mean, channels), _of_channels("std", std, channels)
    if std is not None:
        values = values * std
    if mean is not None:
        values = values + mean
    if channels not in (1, 3):
        values = values.mean(dim=0, keepdim=True)
    values = values.nan_to_num(0, 1, 0)
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    if low < -1e-3 or high > 1 + 1e-3:
        low, high = float(values.min()), float(values.max())
    values = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)
    return values.expand(3, -1).t().numpy()


def _of_channels(name: str, given: Any, channels: int) -> Tensor | None:
    """One number, or one of each channel. [1 or C, 1]"""
    if given is None:
        return None
    try:
        numbers = torch.as_tensor(given, dtype=torch.float64, device="cpu").reshape(-1, 1)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name} is {given!r}, expected a number, or one of each of {channels} channels"
        ) from None
    if len(numbers) not in (1, channels):
        raise ValueError(f"{name} has {len(numbers)} entries, the picture {channels} channels")
    return numbers


def _own_colours(data: Data, points: slice) -> np.ndarray | None:
    """The colours that a scan came with, as `read_points` names them."""
    color = data.get("color")
    if not isinstance(color, Tensor) or color.shape != (len(data.pos), 3):
        return None
    scale = 1 if color.is_floating_point() else 255
    return (color[points].detach().cpu().double() / scale).clamp(0, 1).numpy()
