"""What a context cluster has learnt."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pointcluster.ops.regions import Regions


class Weights(NamedTuple):
    """The weights of a context cluster of H heads with c channels each; W = H c."""

    fv: Tensor
    """The map to f and v, f first. [2 W, C]"""
    fv_bias: Tensor
    """[2 W]"""
    out: Tensor
    """The last map. [C', W]"""
    out_bias: Tensor
    """[C']"""
    alpha: Tensor
    """Scale of the similarity. [1]"""
    beta: Tensor
    """Shift of the similarity. [1]"""


def shapes_fit(
    x: Tensor, regions: Regions, w: Weights, heads: int, residual: Tensor | None = None
) -> bool:
    """Whether shapes are those of a context cluster, which kernels are made for."""
    if x.dim() != 2 or w.fv.dim() != 2 or w.out.dim() != 2 or regions.group.dim() != 3:
        return False
    (points, channels), (out, width) = x.shape, w.out.shape
    if regions.ptr is None and (not regions.size or points % regions.size):
        return False
    rows = len(regions.group)
    alike = regions.ptr is None and rows in (1, points // (regions.size or 1))
    return (
        width % heads == 0
        and w.fv.shape == (2 * width, channels)
        and w.fv_bias.shape == (2 * width,)
        and w.out_bias.shape == (out,)
        and w.alpha.shape == w.beta.shape == (1,)
        and (residual is None or residual.shape == (points, out))
        and (alike or (regions.ptr is not None and rows in (1, len(regions.ptr) - 1)))
        and regions.filled.shape == regions.group.shape[:2]
        and (regions.closed is None or regions.closed.shape == regions.filled.shape)
    )
