"""What networks answer with."""

from __future__ import annotations

import operator
from typing import NamedTuple, SupportsIndex

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
    cloud_size: int | None = None
    """Points of every cloud, where all have as many."""


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

    def of_head(self, head: int | None) -> PointClusters:
        """The clusters of one head alone, [N, 1]; `None`: of all.

        Raises:
            IndexError: There is no such head.
            TypeError: It is no integer.
        """
        if head is None:
            return self
        head = place("head", head, self.index.size(1))
        one = slice(head, head + 1)
        return self._replace(index=self.index[:, one], similarity=self.similarity[:, one])

    def _repr_html_(self) -> str:
        """What a notebook shows: how many points each centre has."""
        points, heads = self.index.shape
        centers = len(self.center_pos)
        clouds = len(self.batch.unique())
        regions = len(self.region.unique())
        rows = []
        for head in range(heads):
            count = self.index[:, head].bincount(minlength=centers)
            used = count[count > 0]
            similarity = self.similarity[:, head]
            numbers = [f"{head}", f"{len(used):,}"]
            if len(used):
                numbers += [f"{int(each):,}" for each in (used.min(), used.median(), used.max())]
                numbers += [f"{float(similarity.mean()):.3f}"]
            else:  # of no points
                numbers += [""] * 4
            rows.append("".join(f"<td>{each}</td>" for each in numbers))
        names = ("head", "centres with points", "fewest points", "median", "most", "similarity")
        return (
            f"<table><caption>{points:,} points of {clouds:,} cloud{'s' * (clouds > 1)}, "
            f"{regions:,} region{'s' * (regions > 1)}, {centers:,} centres</caption>"
            f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
            f"{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
        )


def place(name: str, index: SupportsIndex, count: int) -> int:
    """An index from the front; negative ones count from the end.

    Raises:
        IndexError: There is nothing of that number; the message tells which there are.
        TypeError: It is no integer; the message tells the same.
    """
    what = f"choose 0 to {count - 1}, or -{count} to -1" if count > 1 else "there is only 0"
    try:
        number = operator.index(index)
    except TypeError:
        raise TypeError(f"a {name} is chosen by an integer, found {index!r}: {what}") from None
    if not -count <= number < count:
        raise IndexError(f"there is no {name} number {number}: {what}")
    return number % count
