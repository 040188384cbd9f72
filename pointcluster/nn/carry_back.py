"""More points with fewer channels: a reducer's way back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster.geometry.carry import CarryGeometry
from pointcluster.geometry.check import check_positive
from pointcluster.nn.batch_norm import BatchNorm

MODES = ("interpolate", "assign")


class CarryBack(nn.Module):
    r"""Carry the anchors' features back to the points that they were chosen from.

    With $V z_n$ of the point's features from before the reduction, the skip, and the nearest
    anchors $a \in A(n)$ of a :class:`~pointcluster.geometry.CarryGeometry`: `"interpolate"`, by
    inverse distance, as in "PointNet++", Qi et al., NeurIPS 2017,

    $$ y_n = \operatorname{gelu} \operatorname{norm}
       \Big( V z_n + \sum_{a \in A(n)} w_{na} W x_a \Big), $$

    or `"assign"`, the way a context cluster dispatches (Ma et al., ICLR 2023): a point belongs to
    that one of the anchors which is most like it,

    $$ s_{na} = \operatorname{sigmoid}(\beta + \alpha \cos(W x_a, V z_n)), \quad
       a(n) = \operatorname{argmax}_a s_{na}, \quad
       y_n = \operatorname{gelu} \operatorname{norm} ( V z_n + s_{n a(n)} W x_{a(n)} ). $$

    Args:
        in_channels: Channels of the anchors C.
        skip_channels: Channels of the points before S.
        out_channels: Channels of the output.
        mode: `"interpolate"` or `"assign"`.

    Shapes:
        - **x:** $(M, C)$, **skip:** $(N, S)$
        - **output:** $(N, C_{out})$

    Raises:
        ValueError: A number is not positive, or the mode is unknown.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, *, mode: str = "interpolate"
    ) -> None:
        super().__init__()
        for name, value in [("in_channels", in_channels), ("out_channels", out_channels)]:
            check_positive(name, value)
        check_positive("skip_channels", skip_channels, least=0)
        if mode not in MODES:
            raise ValueError(f"mode must be 'interpolate' or 'assign', found {mode!r}")
        if mode == "assign" and not skip_channels:
            raise ValueError("mode = 'assign' compares anchors to the skip: skip_channels is 0")
        self.mode = mode
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.skip = nn.Linear(skip_channels, out_channels, bias=False) if skip_channels else None
        self.norm = BatchNorm(out_channels)
        if mode == "assign":
            self.alpha, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, geometry: CarryGeometry, skip: Tensor | None = None) -> Tensor:
        """Carry the features of the anchors back, and add what the points had before.

        Raises:
            ValueError: The points before are not those of the geometry.
        """
        if skip is not None and len(skip) != len(geometry.index):
            raise ValueError(f"skip has {len(skip)} points, the geometry {len(geometry.index)}")
        x = self.linear(x)  # before it is spread: there are fewer anchors than points
        y = None if self.skip is None else self.skip(skip)
        if self.mode == "assign":
            x = self._assigned(x, geometry, y)
        else:
            x = interpolate(x, geometry)
        return F.gelu(self.norm(x if y is None else x + y))

    def _assigned(self, x: Tensor, geometry: CarryGeometry, y: Tensor | None) -> Tensor:
        """The anchor that is most like the point, as much as it is."""
        assert y is not None
        near = F.normalize(x, dim=1), F.normalize(y, dim=1)
        columns = geometry.index.unbind(1)
        cosine = torch.stack([(near[0][column] * near[1]).sum(dim=1) for column in columns], dim=1)
        similarity = torch.sigmoid(self.beta + self.alpha * cosine)  # [N, k]
        similarity, best = similarity.max(dim=1, keepdim=True)
        return similarity * x[geometry.index.gather(1, best)[:, 0]]


def interpolate(x: Tensor, geometry: CarryGeometry) -> Tensor:
    r"""What the anchors have, as every point sees it: their mean by inverse distance.

    Shapes:
        - **x:** $(M, C)$
        - **output:** $(N, C)$
    """
    weight = geometry.weight.to(x.dtype)
    out = weight[:, :1] * x[geometry.index[:, 0]]  # one by one: no [N, k, C] is held
    for j in range(1, weight.size(1)):
        out = torch.addcmul(out, weight[:, j : j + 1], x[geometry.index[:, j]])
    return out
