"""The distance that every search agrees on, and clouds laid out as padded rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Squared Euclidean distance, rounded the same way wherever it is computed.

    $$ d(a, b) = ((a_1 - b_1)^2 + (a_2 - b_2)^2) + \ldots $$

    in the positions' own dtype, axis after axis, each operation rounded by itself. This fixes the
    last bit, so that backends can agree on which of two almost equally distant points is nearer.

    Shapes:
        - **a**, **b:** $(*, D)$, broadcast against each other
        - **output:** $(*)$
    """
    total = (a[..., 0] - b[..., 0]).square_()
    for axis in range(1, a.size(-1)):
        total += (a[..., axis] - b[..., axis]).square_()
    return total


def take(x: Tensor, index: Tensor) -> Tensor:
    """`x[index]` for rows [N, C] and an index of any shape, several times as fast on the CPU."""
    return x.index_select(0, index.reshape(-1)).view(*index.shape, x.size(1))


def stable_order(key: Tensor) -> Tensor:
    """The stable order of each row [S, W], rising.

    Float32 on the CPU is sorted as integers that hold the value above the column: several times as
    fast as a stable sort, and all are different, so that any sort is stable.
    """
    if key.dtype != torch.float32 or key.device.type != "cpu":
        return key.sort(dim=1, stable=True).indices
    bits = (key.numpy() + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32 | np.arange(key.size(1))
    bits.sort(axis=1)
    return torch.from_numpy(bits & 0xFFFFFFFF)


def starts_of(sizes: Sequence[int]) -> list[int]:
    """Where each cloud starts in the packed order, and where the last one ends."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts


def cloud_index(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The cloud of each packed point [N]: the batch vector of clouds of these sizes."""
    count = torch.tensor(list(sizes), dtype=torch.int64, device=device)
    return torch.repeat_interleave(torch.arange(len(sizes), device=device), count)


def of_like_size(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Group the clouds that hold points so that padding a group at most doubles it."""
    groups: dict[int, list[int]] = {}
    for cloud, size in enumerate(sizes):
        if size:
            groups.setdefault((size - 1).bit_length(), []).append(cloud)
    yield from groups.values()


def padded_rows(
    sizes: Sequence[int], clouds: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    r"""Lay clouds out as rows of one matrix.

    Returns:
        The packed index in each slot (a padded slot repeats the row's last point) and the number
        of points a row.

    Shapes:
        - **output:** $(S, W)$ and $(S)$ for $S$ clouds of at most $W$ points
    """
    starts = starts_of(sizes)
    start = torch.tensor([starts[c] for c in clouds], device=device)
    count = torch.tensor([sizes[c] for c in clouds], device=device)
    width = max(sizes[c] for c in clouds)
    slot = torch.arange(width, device=device)
    return start[:, None] + torch.minimum(slot, count[:, None] - 1), count


def geometry_dtype(pos: Tensor) -> Tensor:
    """Positions in the precision that geometry is worked out in: float32, or float64 as given."""
    return pos if pos.dtype in (torch.float32, torch.float64) else pos.float()
