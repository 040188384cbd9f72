"""Fewer points with more channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pointcluster.geometry import AnchorGeometry, anchor_geometry
from pointcluster.geometry.check import check_positive


class PointReducer(nn.Module):
    r"""Keep evenly chosen anchors, each with what it gathers from its nearest points.

    `"concat"`, the paper's form: the k nearest points' features and relative positions, nearest
    first, concatenated and fused by a linear map,

    $$ y_a = W [x_{n_1}, p_{n_1} - p_a, \ldots, x_{n_k}, p_{n_k} - p_a] + b. $$

    `"max"`, the form that 3D networks use:

    $$ y_a = \max_j \big( W x_{n_j} + e(p_{n_j} - p_a) \big) $$

    with a small MLP $e$. The linear map comes before the gathering: once a point, not once a
    neighbour. Without features, $x$ may be `None` and positions alone are gathered.

    From "Image as Set of Points", Ma et al., ICLR 2023; the maximum over a neighbourhood is of
    "PointNet++", Qi et al., NeurIPS 2017.

    Args:
        in_channels: Channels of the input; 0 without features.
        out_channels: Channels of the output.
        k: Points that an anchor gathers.
        num: Anchors a cloud, or as a float in (0, 1] the share of its points.
        dim: Number of axes of the positions; 0 leaves relative positions out.
        mode: `"concat"` or `"max"`.
        hidden: Channels inside the MLP of `"max"`.
        scaled: Divide relative positions by their cloud's mean reach, so that the layer sees the
            same at any density and scale.

    Shapes:
        - **x:** $(N, C_{in})$, **pos:** $(N, D)$, **batch:** $(N)$ sorted
        - **output:** $(M, C_{out})$, $(M, D)$ and $(M)$: features, positions and clouds of the anchors

    Raises:
        ValueError: A number is not positive, an option is unknown, or nothing is left to gather.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        k: int = 16,
        num: int | float = 0.5,
        dim: int = 3,
        mode: str = "concat",
        hidden: int = 16,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        for name, value in [("out_channels", out_channels), ("k", k), ("hidden", hidden)]:
            check_positive(name, value)
        if mode not in ("concat", "max"):
            raise ValueError(f"mode must be 'concat' or 'max', found {mode!r}")
        if in_channels < 0 or dim < 0 or in_channels + dim == 0:
            raise ValueError(
                f"nothing to gather with in_channels = {in_channels} and dim = {dim}"
            )
        self.in_channels, self.k, self.num, self.dim = in_channels, k, num, dim
        self.mode, self.scaled = mode, scaled
        if mode == "concat":
            self.linear = nn.Linear(k * (in_channels + dim), out_channels)
        else:
            self.linear = nn.Linear(in_channels, out_channels) if in_channels else None
            self.encode = (
                nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out_channels))
                if dim
                else None
            )

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor | AnchorGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        num: int | float | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reduce the points.

        Args:
            x: Features of the points.
            pos: Their positions, or the geometry worked out before by :func:`anchor_geometry`.
            batch: Sorted cloud index of each point, with positions.
            batch_size: Number of clouds, when the last ones may be empty.
            num: Anchors a cloud, instead of the layer's own.

        Raises:
            TypeError, ValueError: The point set is malformed or does not fit the layer.
        """
        if isinstance(pos, AnchorGeometry):
            geometry = pos
        else:
            geometry = anchor_geometry(
                pos, self.num if num is None else num, self.k, batch, batch_size=batch_size
            )
            if x is not None and len(x) != len(pos):
                raise ValueError(f"x has {len(x)} points, pos {len(pos)}")
        found = 0 if x is None else x.size(1)
        if found != self.in_channels:
            raise ValueError(f"x must have {self.in_channels} channels, found {found}")
        if geometry.grouping.size(1) != self.k:
            raise ValueError(
                f"the geometry gathers {geometry.grouping.size(1)} points, the layer {self.k}"
            )
        return self._gather(x, geometry), geometry.pos, geometry.batch

    def _gather(self, x: Tensor | None, geometry: AnchorGeometry) -> Tensor:
        index = geometry.grouping
        relative = geometry.relative
        if self.dim and relative.size(2) != self.dim:
            raise ValueError(f"positions must have {self.dim} axes, found {relative.size(2)}")
        if self.scaled:
            relative = relative / geometry.radius[geometry.batch][:, None, None]
        dtype = next(self.parameters()).dtype if x is None else x.dtype
        relative = relative.to(dtype)
        if self.mode == "concat":
            parts = [x[index]] if x is not None else []
            parts += [relative] if self.dim else []
            return self.linear(torch.cat(parts, dim=2).flatten(1))
        if self.linear is None or x is None:
            return self.encode(relative).amax(dim=1)
        value = self.linear(x)[index]  # [M, k, C]
        if self.encode is not None:
            value = value + self.encode(relative)
        return value.amax(dim=1)
