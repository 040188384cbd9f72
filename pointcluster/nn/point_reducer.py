"""Fewer points with more channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster import ops
from pointcluster.geometry import AnchorGeometry, LatticeStage
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.fps import anchor_numbers
from pointcluster.geometry.lattice import overhang
from pointcluster.nn.anchors import anchors_for
from pointcluster.nn.batch_norm import BatchNorm
from pointcluster.nn.hooks import is_plain
from pointcluster.ops.precision import is_autocast

CHUNK, CHUNK_ON_GPU = 1 << 22, 1 << 28
"""Numbers that are gathered at once where no gradient is asked for."""


class PointReducer(nn.Module):
    r"""Keep evenly chosen anchors, each with what it gathers from its nearest points.

    `"concat"`, the paper's form: the k nearest points' features and relative positions, nearest
    first, concatenated and fused by a linear map,

    $$ y_a = W [x_{n_1}, p_{n_1} - p_a, \ldots, x_{n_k}, p_{n_k} - p_a] + b. $$

    `"max"`, the form that 3D networks use:

    $$ y_a = \max_j \big( W x_{n_j} + e(p_{n_j} - p_a) \big) $$

    with a small MLP $e$, or a linear map (`hidden=0`), which is far cheaper. $W$ is applied before
    the gathering, once a point and not once a neighbour. Without features, $x$ may be `None` and
    positions alone are gathered. Without gradients a large cloud's anchors gather in parts, so that
    no more than a few numbers a point are held beyond input and output.

    From "Image as Set of Points", Ma et al., ICLR 2023; the maximum over a neighbourhood is of
    "PointNet++", Qi et al., NeurIPS 2017.

    Args:
        in_channels: Channels of the input; 0 without features.
        out_channels: Channels of the output.
        k: Points that an anchor gathers.
        num: Anchors a cloud, or as a float in (0, 1] the share of its points.
        dim: Number of axes of the positions; 0 leaves relative positions out.
        mode: `"concat"` or `"max"`.
        hidden: Channels inside the MLP of `"max"`; 0 for a linear map.
        norm: Normalise the output over the batch, channel by channel, and bend it by GELU.
        scaled: Divide relative positions by their cloud's mean reach, so that the layer sees the
            same at any density and scale.

    Shapes:
        - **x:** $(N, C_{in})$, **pos:** $(N, D)$, **batch:** $(N)$ sorted
        - **output:** $(M, C_{out})$, $(M, D)$, $(M)$: the anchors' features, positions and clouds

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
        norm: bool = False,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        for name, value in [("out_channels", out_channels), ("k", k)]:
            check_positive(name, value)
        if mode not in ("concat", "max"):
            raise ValueError(f"mode must be 'concat' or 'max', found {mode!r}")
        if min(in_channels, dim, hidden) < 0 or in_channels + dim == 0:
            raise ValueError(
                f"nothing to gather: in_channels = {in_channels}, dim = {dim}, hidden = {hidden}"
            )
        anchor_numbers(num, [])  # refuses what is no number of anchors
        self.in_channels, self.k, self.num, self.dim = in_channels, k, num, dim
        self.mode, self.scaled = mode, scaled
        if mode == "concat":
            self.linear: Any = nn.Linear(k * (in_channels + dim), out_channels)
        else:
            # e is two maps: to `hidden`, for each relative position, and from there a linear one.
            self.linear = nn.Linear(in_channels, out_channels) if in_channels else None
            self.encode = None
            if dim and hidden:
                self.encode = nn.Sequential(nn.Linear(dim, hidden), nn.GELU())
            self.place = nn.Linear(hidden or dim, out_channels, bias=False) if dim else None
        self.norm = nn.Sequential(BatchNorm(out_channels), nn.GELU()) if norm else None

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor | AnchorGeometry | LatticeStage,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        num: int | float | Sequence[int] | None = None,
    ) -> Any:
        r"""Reduce the points.

        Args:
            x: Features of the points; with a stage of a lattice, as a map $(B, C_{in}, H, W)$.
            pos: Their positions, or the geometry worked out before by :func:`anchor_geometry`, or
                a stage of :func:`lattice_hierarchy`, with which only the features
                $(B \cdot n, C_{out})$ are returned.
            batch: Sorted cloud index of each point, with positions.
            batch_size: Number of clouds, when the last ones may be empty.
            num: Anchors a cloud, instead of the layer's own.

        Raises:
            TypeError, ValueError: The point set is malformed or does not fit the layer.
        """
        if isinstance(pos, LatticeStage):
            assert x is not None
            return self._convolve(x, pos)
        geometry = anchors_for(pos, batch, batch_size, num, default=self.num, k=self.k)
        if x is not None and (x.dim() != 2 or len(x) != geometry.num_points):
            raise ValueError(
                f"x must have shape [{geometry.num_points}, {self.in_channels}] (points, "
                f"channels), found {list(x.shape)}"
            )
        there = geometry.grouping.device
        like = next(self.parameters(), None)  # a quantised layer has none
        here = there if x is None else x.device
        place = there if like is None else like.device
        if not place == there == here:
            raise ValueError(f"x is on {here}, the positions on {there}, the layer on {place}")
        if x is not None and like is not None and x.dtype != like.dtype and not is_autocast(like):
            raise ValueError(f"x is {x.dtype}, the layer {like.dtype}: convert one of them")
        found = 0 if x is None else x.size(1)
        if found != self.in_channels:
            raise ValueError(f"x must have {self.in_channels} channels, found {found}")
        y = self._gather(x, geometry)
        y = y if self.norm is None else self.norm(y)
        return y, geometry.pos, geometry.batch

    def _convolve(self, image: Tensor, stage: LatticeStage) -> Tensor:
        r"""Reduce the points of a lattice: the concatenation of a square's points, row by row, and
        its linear map are a convolution. For `"concat"` without relative positions.

        Args:
            image: The points' features as a map.
            stage: Kernel, stride and padding; and how the anchors are stored.

        Shapes:
            - **image:** $(B, C_{in}, H, W)$
            - **output:** $(B \cdot n, C_{out})$

        Raises:
            ValueError: The layer has another kernel, or is of another form.
        """
        kernel, stride, padding = stage.plan[:3]
        around = {"stride": stride, "padding": padding, "dilation": stage.plan.dilation}
        if self.mode != "concat" or self.dim or self.k != kernel**2:
            raise ValueError(
                f"a lattice with a kernel of {kernel} needs mode = 'concat', dim = 0 and "
                f"k = {kernel**2}, found {self.mode!r}, {self.dim} and {self.k}"
            )
        below, right = (overhang(size, stage.plan) for size in image.shape[2:])
        if below or right:
            image = F.pad(image, (0, right, 0, below))
        if is_plain(self.linear):
            weight = self.linear.weight.view(-1, kernel, kernel, self.in_channels)
            weight, bias = weight.permute(0, 3, 1, 2), self.linear.bias
            y = F.conv2d(image, weight, bias, **around).permute(0, 2, 3, 1)
        else:  # the layer wants to be called
            squares = F.unfold(image, kernel, **around).mT  # [B, n, C * k]
            squares = squares.unflatten(2, (self.in_channels, self.k)).mT.flatten(2)
            y = self.linear(squares).unflatten(1, stage.clusters.grid)
        y = stage.clusters.from_rows(y)
        return y if self.norm is None else self.norm(y)

    def _gather(self, x: Tensor | None, geometry: AnchorGeometry) -> Tensor:
        axes = geometry.relative.size(2)
        if self.dim and axes != self.dim:
            raise ValueError(f"positions must have {self.dim} axes, found {axes}")
        like = next(self.parameters(), geometry.relative) if x is None else x
        dtype = like.dtype
        if geometry.outside:
            if x is None or self.mode != "concat":
                raise ValueError("only mode = 'concat' with features gathers zeros at a border")
            x = torch.cat([x, x.new_zeros(1, x.size(1))])
        if self.mode == "max" and self.linear is not None:
            x = self.linear(x)  # [N, C]
        size = len(geometry.grouping)
        # A compiled or exported network must not depend on the number of anchors.
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling()
        step = size if whole else self._anchors_at_once(geometry.relative.device)
        if step >= size:
            return self._gather_part(x, geometry, slice(0, size), dtype)
        y = None
        for start in range(0, size, step):
            rows = slice(start, min(start + step, size))
            part = self._gather_part(x, geometry, rows, dtype)
            if y is None:
                y = part.new_empty(size, part.size(1))
            y[rows] = part
        assert y is not None
        return y

    def _anchors_at_once(self, device: torch.device) -> int:
        """So many that what they gather, encode and compare stays near :data:`CHUNK` numbers, or on
        a GPU, which small pieces leave idle, :data:`CHUNK_ON_GPU`."""
        chunk = CHUNK if device.type == "cpu" else CHUNK_ON_GPU
        if self.mode == "concat":
            numbers = self.linear.in_features + self.linear.out_features
        else:
            width = 0 if self.place is None else self.place.in_features
            numbers = self.k * max(width, self.dim)
            numbers += 4 * (self.linear if self.place is None else self.place).out_features
        return max(1, chunk // numbers)

    def _gather_part(
        self, x: Tensor | None, geometry: AnchorGeometry, rows: slice, dtype: torch.dtype
    ) -> Tensor:
        """What some of the anchors gather; `x` has been mapped already for `"max"`."""
        index, relative = geometry.grouping[rows], geometry.relative[rows]
        if self.scaled:
            relative = relative / geometry.radius[geometry.batch[rows]][:, None, None]
        relative = relative.to(dtype)
        if self.mode == "concat":
            parts = [x[index]] if x is not None else []
            parts += [relative] if self.dim else []
            return self.linear(torch.cat(parts, dim=2).flatten(1))
        place: Any = self.place
        if place is None:
            return ops.gather_max(x, None, None, index)
        if self.encode is not None:
            relative = self.encode(relative)
        if not is_plain(place, bias=False):  # it wants to be called
            value = place(relative)
            return (value if x is None else value + x[index]).max(dim=1).values
        weight = place.weight
        if x is not None:  # one type, also under autocast
            relative, weight = relative.to(x.dtype), weight.to(x.dtype)
        return ops.gather_max(x, relative, weight, index)
