"""Checks of packed point sets: the one place where bad input is turned away."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor


def cloud_sizes(
    pos: Tensor,
    batch: Tensor | None,
    batch_size: int | None = None,
    *,
    sizes: Sequence[int] | None = None,
    name: str = "pos",
) -> list[int]:
    r"""Check a packed point set and count the points of each of its clouds.

    Everything that enters the geometry passes here once; what lies below trusts its input. The
    counts come back as Python integers: on a GPU this is the one synchronisation of a batch.

    Args:
        pos: Positions, finite and of a floating type.
        batch: Sorted cloud index of each point; `None` means that all points are one cloud.
        batch_size: Number of clouds. Clouds that no point belongs to, also at the end, are empty.
            `None` takes the largest index plus one.
        sizes: Points of each cloud, where the host knows them: values are not looked at then.
        name: What to call `pos` in an error.

    Shapes:
        - **pos:** $(N, D)$ with $D \ge 1$
        - **batch:** $(N)$

    Raises:
        TypeError: `pos` is no floating tensor, or `batch` is no int64 tensor.
        ValueError: Shapes do not fit, a position is not finite, devices differ, `batch` is
            unsorted, negative, or reaches `batch_size`.
    """
    if not isinstance(pos, Tensor) or not pos.is_floating_point():
        found = pos.dtype if isinstance(pos, Tensor) else type(pos).__name__
        raise TypeError(f"{name} must be a floating tensor of shape [N, D], found {found}")
    pos = pos.detach()
    if pos.dim() != 2 or pos.size(1) < 1:
        raise ValueError(f"{name} must have shape [N, D], found {list(pos.shape)}")
    if pos.device.type == "meta":
        raise ValueError(f"{name} is on the meta device and has no values to work with")
    if batch_size is not None:
        check_positive("batch_size", batch_size, least=0)
    if sizes is not None:
        if sum(sizes) != len(pos) or batch_size not in (None, len(sizes)):
            raise ValueError(
                f"{name} has {len(pos)} points{'' if batch_size is None else f' of {batch_size}'}, "
                f"found sizes of {len(sizes)} clouds with {sum(sizes)}"
            )
        return list(sizes)
    finite = torch.isfinite(pos).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name} holds NaN or infinite positions, first at point {bad} "
            f"({pos[bad].tolist()}): remove such points before"
        )
    check_extent(name, pos)
    if batch is None:
        if batch_size not in (None, 1):
            raise ValueError(f"batch_size = {batch_size} needs a batch vector")
        return [pos.size(0)]
    check_index("batch", batch, pos)
    if batch.numel() == 0:
        return [0] * (batch_size or 0)
    first, last = int(batch[0]), int(batch[-1])
    if bool((batch[1:] < batch[:-1]).any()):
        raise ValueError("batch must be sorted (points of one cloud lie together): sort the points")
    if first < 0:
        raise ValueError(f"batch must not be negative, found {first}")
    if batch_size is not None and last >= batch_size:
        raise ValueError(f"batch holds cloud {last}, but batch_size is {batch_size}")
    return torch.bincount(batch, minlength=batch_size or 0).tolist()


def check_extent(name: str, *points: Tensor) -> None:
    """Check that squared distances among points neither overflow nor vanish.

    Raises:
        ValueError: They would, in the type that they are computed in.
    """
    some = [each for each in points if each.size(0)]
    if not some:
        return
    kind = torch.finfo(torch.float64 if some[0].dtype == torch.float64 else torch.float32)
    low = torch.stack([each.amin(dim=0) for each in some]).amin(dim=0).double()
    high = torch.stack([each.amax(dim=0) for each in some]).amax(dim=0).double()
    extent = float((high - low).max())
    least, most = 1e3 * kind.tiny**0.5, 1e-3 * kind.max**0.5
    if extent and not least < extent < most:
        raise ValueError(
            f"{name} extends over {extent:.3g}, outside {least:.0e} to {most:.0e}, where squared "
            f"distances fit into {str(some[0].dtype).removeprefix('torch.')}: rescale the positions"
        )


def check_index(name: str, index: Tensor, pos: Tensor) -> None:
    """Check that `index` is an int64 vector with one entry a point of `pos`, on its device.

    Raises:
        TypeError: `index` is no int64 tensor.
        ValueError: Lengths or devices differ.
    """
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        found = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"{name} must be an int64 tensor, found {found}")
    if index.dim() != 1 or index.size(0) != pos.size(0):
        raise ValueError(
            f"{name} must have one entry a point: {name} has shape {list(index.shape)}, "
            f"the positions {list(pos.shape)}"
        )
    if index.device != pos.device:
        raise ValueError(f"{name} is on {index.device}, the positions on {pos.device}")


def check_positive(name: str, value: SupportsIndex, least: int = 1) -> None:
    """Check that `value` is an integer of at least `least`.

    Raises:
        TypeError: It is no integer.
        ValueError: It is smaller.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, found {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, found {value}")


def geometry_dtype(pos: Tensor) -> Tensor:
    """Positions in the precision that geometry is worked out in: float32, or float64 as given."""
    return pos if pos.dtype in (torch.float32, torch.float64) else pos.float()
