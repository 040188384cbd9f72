"""What transforms share that leave a part of a picture's pixels."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data


def keep_points(data: Data, kept: Tensor) -> Data:
    """Cut every tensor of one entry a point to the kept points; `grid` becomes `extent`.

    Args:
        data: A point set; it is changed.
        kept: Numbers of the points that stay.

    Shapes:
        - **kept:** $(n)$, int64
    """
    size = data.pos.size(0)
    kept = kept.to(data.pos.device)
    for key, value in data.to_dict().items():
        # In a cloud of one point, a label [1] looks like a value per point: cut neither.
        if isinstance(value, Tensor) and value.dim() and value.size(0) == size > 1:
            data[key] = value[kept]
    return lose_grid(data)


def lose_grid(data: Data) -> Data:
    """Note that points no longer fill their lattice: `grid` becomes `extent`."""
    if "grid" in data:
        data.extent = data.grid
        del data.grid
    return data


def points_of(data: Data, name: str) -> int:
    """How many points there are.

    Raises:
        ValueError: There are none, they have no positions, or they are of a batch.
    """
    _refuse_batch(data, name)
    if data.pos is None:
        raise ValueError(f"{name} needs points with 'pos': put it after ImageToPoints")
    if data.pos.size(0) == 0:
        raise ValueError(f"{name} has no point to keep: the point set is empty")
    return data.pos.size(0)


def grid_of(data: Data, name: str) -> tuple[int, int]:
    """The lattice that the points fill.

    Raises:
        ValueError: They fill none, or are of a batch.
    """
    _refuse_batch(data, name)
    grid = data.get("grid")
    if grid is None:
        raise ValueError(
            f"{name} needs a whole picture with 'grid': put it after ImageToPoints and before "
            "transforms that drop pixels"
        )
    height, width = grid
    if height * width != (size := points_of(data, name)):
        raise ValueError(f"the grid is {height} x {width}, but there are {size} points")
    return int(height), int(width)


def _refuse_batch(data: Data, name: str) -> None:
    if isinstance(data, Batch) or "ptr" in data:
        raise ValueError(
            f"{name} takes one picture or cloud, found a batch of them: apply it to each before "
            "they are joined, as a data set's transform"
        )


def drawn_from(data: Data, seed: int | None) -> torch.Generator | None:
    """A generator that depends on a seed and the points' values; PyTorch's own without a seed."""
    if seed is None:
        return None
    values = data.pos if data.x is None else data.x
    # As bytes: NumPy has no bfloat16.
    content = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    # One 32-bit number of both, as PyTorch's generator heeds no more bits of a seed.
    return torch.Generator().manual_seed(zlib.crc32(content, seed % 2**32))
