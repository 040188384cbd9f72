"""What a context cluster has learnt."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
