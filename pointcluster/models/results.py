"""What networks answer with."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """The points of a stage with their features."""

    x: Tensor
    """Features. [N, C]"""
    pos: Tensor
    """Positions. [N, D]"""
    batch: Tensor
    """Cloud of each point. [N]"""
    batch_size: int
    """Number of clouds."""


class PointClusters(NamedTuple):
    """The clusters of one block, seen from the points that went into the network."""

    index: Tensor  # type: ignore[assignment]
    """Number of each point's centre. [N, heads]"""
    similarity: Tensor
    """Similarity of its anchor to that centre, in (0, 1). [N, heads]"""
    region: Tensor
    """Region of each point. [N]"""
    batch: Tensor
    """Cloud of each point. [N]"""
    center_pos: Tensor
    """Where the centres sit. [R * M, D]"""
    center_batch: Tensor
    """Cloud of each centre. [R * M]"""


def place(name: str, index: int, count: int) -> int:
    """An index from the front; negative ones count from the end.

    Raises:
        IndexError: There is nothing of that number.
    """
    if not -count <= index < count:
        raise IndexError(f"there is no {name} number {index}: choose 0 to {count - 1}")
    return index % count
