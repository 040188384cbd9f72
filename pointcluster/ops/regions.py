"""Where points are clustered: the regions of a set of points, and their centres' groupings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Regions(NamedTuple):
    r"""Regions of N points that are stored region by region, and the M centres of each.

    Regions of one size P are slices, `ptr` and `of` may be left out, and where all are alike (the
    regions of a lattice) one row of `group`, `filled` and `closed` stands for all of them.
    """

    group: Tensor
    """Points that each centre is the mean of, counted from their region's first. [R or 1, M, k]"""
    filled: Tensor
    """How many of those count, the first ones. [R or 1, M]"""
    closed: Tensor | None = None
    """Centres that repeat another, and so take no point. [R or 1, M]"""
    size: int | None = None
    """Points a region, P, where all have as many."""
    ptr: Tensor | None = None
    """Where each region begins, and where the last one ends. [R + 1]"""
    of: Tensor | None = None
    """Region of each point. [N]"""
    pool: Tensor | None = None
    """`group` as a matrix, for regions of one size: 1 where a point counts. [R or 1, M, P]"""
    most: int | None = None
    """Points that no region has more of, where that is known without asking a GPU."""

    @property
    def num_centers(self) -> int:
        """Centres a region, M."""
        return self.group.size(1)

    def starts(self, num_points: int) -> Tensor:
        """Where each region begins, and where the last one ends. [R + 1]"""
        if self.ptr is not None:
            return self.ptr
        step = self.size or 1
        return torch.arange(0, num_points + 1, step, device=self.group.device)

    def region(self, num_points: int) -> Tensor:
        """Region of each point. [N]"""
        if self.of is not None:
            return self.of
        ptr = self.starts(num_points)
        region = torch.arange(len(ptr) - 1, device=ptr.device)
        return region.repeat_interleave(ptr.diff(), output_size=num_points)

    def pooling(self, dtype: torch.dtype) -> Tensor:
        """What each point of a region counts in the centres' means. [R or 1, M, P]"""
        if self.pool is not None:
            return self.pool.to(dtype)
        counts = self.counting(dtype)
        pool = counts.new_zeros(*self.group.shape[:2], self.size or 0)
        return pool.scatter_add(2, self.group, counts)

    def counting(self, dtype: torch.dtype) -> Tensor:
        """1 for a point of a grouping that counts, 0 for one that fills it up. [R or 1, M, k]"""
        slot = torch.arange(self.group.size(2), device=self.group.device)
        return (slot < self.filled[..., None]).to(dtype)
