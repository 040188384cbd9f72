"""Packed clouds of known sizes: their distances, and their points as the rows of one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

EQUAL = 64
"""So many roundings apart, two distances may be the same but for the order of sums."""


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


FEW_RUNS = 8
"""Numbers of so many runs of equal ones are made where they are wanted: nothing is copied there, so
that a CUDA graph can hold it. Equal clouds in all stages of a network have as many as stages."""


def runs(numbers: Sequence[int]) -> list[list[int]] | None:
    """Number and length of each run of equal numbers, if they are few."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][0] == number:
            found[-1][1] += 1
        elif len(found) == FEW_RUNS:
            return None
        else:
            found.append([number, 1])
    return found


def in_line(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Parts of whole numbers, one after the other; there may be none. [N]"""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts)) if parts else torch.empty(0, dtype=torch.int64, device=device)


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers that the host knows, as a tensor; a GPU is not waited for."""
    few = runs(numbers)
    if few is not None:
        return in_line(
            [torch.full((m,), n, dtype=torch.int64, device=device) for n, m in few], device
        )
    tensor = torch.tensor(numbers, dtype=torch.int64)
    if device.type == "cuda" and type(tensor) is Tensor:  # a fake one has no memory to pin
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def on_host(x: Tensor) -> bool:
    """Whether a tensor's values can be looked at without waiting, by whoever runs this."""
    return x.device.type == "cpu" and type(x) is Tensor and not torch.compiler.is_compiling()


def starts_of(sizes: Sequence[int]) -> list[int]:
    """Where each cloud starts in the packed order, and where the last one ends."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return starts


def alike(sizes: Sequence[int]) -> bool:
    """Whether there are clouds, and all have the same number of points."""
    return len(sizes) > 0 and sizes.count(sizes[0]) == len(sizes)


def common_size(sizes: Sequence[int]) -> int | None:
    """Points a cloud where all have the same number, and are not empty."""
    return (sizes[0] or None) if alike(sizes) else None


def pointers(sizes: Sequence[int], device: torch.device) -> Tensor:
    """:func:`starts_of` as a tensor. [B + 1]"""
    few = runs(sizes)
    if few is None:
        return on_device(starts_of(sizes), device)
    parts: list[Tensor] = []
    end = 0
    for n, m in few or [[0, 0]]:
        count = m + (not parts)  # with where the first begins
        begin, end = end + n * (m - count + 1), end + n * m
        if n:
            parts.append(torch.arange(begin, end + 1, n, device=device))
        else:
            parts.append(torch.full((count,), end, dtype=torch.int64, device=device))
    return in_line(parts, device)


def cloud_index(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The cloud of each packed point [N]: the batch vector of clouds of these sizes."""
    clouds, few = torch.arange(len(sizes), device=device), runs(sizes)
    if few is None:
        return clouds.repeat_interleave(on_device(sizes, device), output_size=sum(sizes))
    parts = zip(clouds.split([m for _, m in few]), few, strict=True)
    return in_line([part.repeat_interleave(n) for part, (n, _) in parts], device)


def numbered(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The number of each packed point in its cloud. [N]"""
    few = runs(sizes)
    if few is None:
        start = pointers(sizes, device)[cloud_index(sizes, device)]
        return torch.arange(len(start), device=device) - start
    return in_line([torch.arange(n, device=device).repeat(m) for n, m in few], device)


def of_like_size(*sizes: Sequence[int]) -> Iterator[list[int]]:
    """Group the clouds that hold points so that padding a group at most doubles it.

    Of several sequences, say sizes and numbers of queries, none may be zero.
    """
    if all(alike(each) for each in sizes):
        if all(each[0] for each in sizes):
            yield list(range(len(sizes[0])))
        return
    groups: dict[tuple[int, ...], list[int]] = {}
    for cloud, of_cloud in enumerate(zip(*sizes, strict=True)):
        if all(of_cloud):
            groups.setdefault(tuple((n - 1).bit_length() for n in of_cloud), []).append(cloud)
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
    counts, starts = [sizes[c] for c in clouds], starts_of(sizes)
    count = on_device(counts, device)
    if alike(counts) and clouds[-1] - clouds[0] == len(clouds) - 1:  # they follow one another
        slots = torch.arange(starts[clouds[0]], starts[clouds[-1] + 1], device=device)
        return slots.view(len(clouds), -1), count
    start = on_device([starts[c] for c in clouds], device)
    slot = torch.arange(max(counts), device=device)
    return start[:, None] + torch.minimum(slot, count[:, None] - 1), count


def slices(x: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """So many entries of `x` [N] from each start on, one slice after the other."""
    begins = starts_of(sizes)
    shifts = [start - begin for start, begin in zip(starts, begins, strict=False)]
    if not any(shifts):
        return x[: begins[-1]]
    of = cloud_index(sizes, x.device)
    return x[torch.arange(len(of), device=x.device) + on_device(shifts, x.device)[of]]


def smallest(values: Tensor, k: int) -> Tensor:
    """Columns of the `k` smallest values of each row [S, W], none negative; the lower of equals
    first. [S, k]

    `topk` leaves open which of equal values it takes, so what it sees are integers that hold the
    column below the value's bits.
    """
    if values.dtype != torch.float32:
        return values.sort(dim=1, stable=True).indices[:, :k]
    if on_host(values):
        keys = values.numpy().view(np.int32).astype(np.int64)
        keys <<= 32
        keys |= np.arange(values.size(1))
        if k < values.size(1):
            keys.partition(k - 1)
            keys = keys[:, :k].copy()
        keys.sort()
        return torch.from_numpy(keys & 0xFFFFFFFF)
    column = torch.arange(values.size(1), device=values.device)
    mixed = (values.view(torch.int32).long() << 32) | column
    return mixed.topk(k, dim=1, largest=False).values & 0xFFFFFFFF
