"""What each anchor learns from its group of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pointcluster.geometry import AnchorGeometry, LatticeGeometry, lattice_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.fps import anchor_numbers
from pointcluster.nn.anchors import anchors_for
from pointcluster.nn.batch_norm import BatchNorm
from pointcluster.nn.context_cluster import ContextCluster, check_features
from pointcluster.nn.hooks import is_plain, is_watched
from pointcluster.nn.residual_mlp import ResidualMLP
from pointcluster.ops.precision import at_least_float32

CHUNK, CHUNK_ON_GPU = 1 << 20, 1 << 28
"""Numbers that groups have at a time where no gradient is asked for."""


class GroupEncoder(nn.Module):
    r"""Keep anchors, each with what context clusters and MLPs learn from its k nearest points.

    A group's features are seen from its anchor's, at the scale of their cloud, beside the anchor's:

    $$ x_{mj} = \operatorname{relu}\Big(\operatorname{norm}\Big(W \Big[\alpha \odot
       \frac{x_{n_j} - x_{a_m}}{\sigma + \epsilon} + \beta,\ x_{a_m}\Big]\Big)\Big) $$

    with $\sigma$ the standard deviation of all $x_{n_j} - x_{a_m}$ of the cloud. Then, block by
    block, each group is one region of a context cluster with one centre, added to what came in, and
    goes through an MLP. The maximum over the group is the anchor's.

    $W$ is applied before the gathering, once a point and not once a neighbour. In evaluation groups
    are worked on some at a time, so that memory does not grow as R x k x C. A cloud of n < k points
    fills its groups by repeating them: slot j holds its neighbour j mod n.

    The paper's network of 3D clouds, "Image as Set of Points", Ma et al., ICLR 2023, on the frame
    of "PointMLP", Ma et al., ICLR 2022, <https://arxiv.org/abs/2202.07123>.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output C.
        k: Points of a group.
        num: Anchors a cloud, or as a float in (0, 1] the share of its points.
        blocks: Context clusters, each with an MLP.
        head_channels: Channels of a context cluster's head; if not said a quarter of C, 32 at
            least.

    Shapes:
        - **x:** $(N, C_{in})$, **pos:** $(N, D)$, **batch:** $(N)$ sorted
        - **output:** $(R, C)$, $(R, D)$, $(R)$: the anchors' features, positions and clouds

    Raises:
        ValueError: A number is not positive.
    """

    EPS = 1e-5

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        k: int = 24,
        num: int | float = 0.5,
        blocks: int = 2,
        head_channels: int | None = None,
    ) -> None:
        super().__init__()
        if head_channels is None:
            head_channels = max(out_channels // 4, 32)
        for name, value in [
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("k", k),
            ("head_channels", head_channels),
        ]:
            check_positive(name, value)
        check_positive("blocks", blocks)
        anchor_numbers(num, [])  # refuses what is no number of anchors
        self.in_channels, self.k, self.num = in_channels, k, num
        self.alpha = nn.Parameter(torch.ones(in_channels))
        self.beta = nn.Parameter(torch.zeros(in_channels))
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.norm = BatchNorm(out_channels)
        self.clusters: Any = nn.ModuleList(
            ContextCluster(
                out_channels, heads=1, head_channels=head_channels, num_centers=1, k=None
            )
            for _ in range(blocks)
        )
        self.mlps: Any = nn.ModuleList(ResidualMLP(out_channels) for _ in range(blocks))

    def forward(
        self,
        x: Tensor,
        pos: Tensor | AnchorGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        num: int | float | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the groups.

        Args:
            x: Features of the points.
            pos: Their positions, or the geometry worked out before by :func:`anchor_geometry`.
            batch: Sorted cloud index of each point, with positions.
            batch_size: Number of clouds, when the last ones may be empty.
            num: Anchors a cloud, instead of the layer's own.

        Raises:
            TypeError, ValueError: The point set is malformed or does not fit the layer.
        """
        geometry = anchors_for(pos, batch, batch_size, num, default=self.num, k=self.k)
        first = self._first(x, geometry)
        out = [
            self._run(first(rows), len(self.mlps)).unflatten(0, (-1, self.k)).amax(dim=1)
            for rows in self._slices(len(geometry.anchor), self.linear.out_features)
        ]
        y = torch.cat(out) if out else x.new_zeros(0, self.linear.out_features)  # [R, C]
        return y, geometry.pos, geometry.batch

    @torch.no_grad()
    def similarities(self, x: Tensor, geometry: AnchorGeometry, block: int) -> Tensor:
        r"""How similar the points of each group are to its centre in one block, in evaluation.

        Shapes:
            - **output:** $(R, k)$
        """
        y = self._run(self._first(x, geometry)(slice(None)), block)
        _, clusters = self.clusters[block](y, one_region(self.k, y.device), return_clusters=True)
        return clusters.similarity.view(-1, self.k)

    def _slices(self, groups: int, channels: int) -> list[slice]:
        """The groups to work on at a time.

        Without gradients or statistics of a batch groups know nothing of each other.
        """
        whole = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        chunk = CHUNK if self.alpha.device.type == "cpu" else CHUNK_ON_GPU
        step = max(1, groups) if whole else max(1, chunk // (self.k * channels))
        return [slice(start, start + step) for start in range(0, groups, step)]

    def _first(self, x: Tensor, geometry: AnchorGeometry) -> Callable[[slice], Tensor]:
        """A function of some groups that gives what their points begin with. [r * k, C]"""
        if geometry.outside:
            raise ValueError("the geometry gathers zeros at a border, too: the layer takes points")
        check_features(x, geometry.num_points, self.in_channels, self.alpha, geometry.anchor.device)
        index, batch, here = geometry.grouping, geometry.batch, x[geometry.anchor]  # [R, C_in]
        cloud = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        cloud[index.reshape(-1)] = batch.repeat_interleave(self.k)
        # Differences are the same seen from the anchors' mean, and there they lose no digits.
        mean = scatter(here.detach(), batch, dim_size=geometry.batch_size, reduce="mean")
        std = self._spread(x, here, geometry) + self.EPS
        seen = (x - mean[cloud]) / std.to(x.dtype)[cloud, None]  # [N, C_in]
        if not is_plain(self.linear, bias=False):  # it wants to be called, pair by pair

            def paired(rows: slice) -> Tensor:
                near = (seen[index[rows]] - seen[geometry.anchor[rows], None]) * self.alpha
                pairs = torch.cat([near + self.beta, here[rows, None].expand_as(near)], dim=2)
                return self.norm(self.linear(pairs.flatten(0, 1))).relu_()

            return paired
        of_near, of_here = self.linear.weight.split(self.in_channels, dim=1)
        u = F.linear(seen, of_near * self.alpha)  # [N, C]
        bias = (of_near @ self.beta).to(u.dtype)
        a = F.linear(here, of_here) + bias - u[geometry.anchor]  # [R, C]

        def summed(rows: slice) -> Tensor:
            pairs = F.embedding(index[rows], u).add_(a[rows, None])  # [r, k, C], in place
            return self.norm(pairs.flatten(0, 1)).relu_()

        return summed

    def _spread(self, x: Tensor, here: Tensor, geometry: AnchorGeometry) -> Tensor:
        """The standard deviation of all differences to the anchors, for each cloud. [B]"""
        if not len(here):
            return here.new_zeros(geometry.batch_size)
        parts = []
        for rows in self._slices(len(here), self.in_channels):
            near = F.embedding(geometry.grouping[rows], x).sub_(here[rows, None])  # [r, k, C_in]
            parts.append(torch.var_mean(at_least_float32(near), dim=(1, 2), correction=0))
        var, mean = (torch.cat(part) for part in zip(*parts, strict=True))  # [R]
        batch, size, number = geometry.batch, geometry.batch_size, self.k * self.in_channels
        middle = scatter(mean, batch, dim_size=size, reduce="mean")  # [B]
        square = number * scatter(var + (mean - middle[batch]).square(), batch, dim_size=size)
        count = number * scatter(torch.ones_like(mean), batch, dim_size=size)
        variance = square / (count - 1).clamp_min(1)
        return torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)

    def _run(self, x: Tensor, depth: int) -> Tensor:
        """What so many context clusters and MLPs make of them. [R * k, C]"""
        region = one_region(self.k, x.device)
        for cluster, mlp in zip(self.clusters[:depth], self.mlps[:depth], strict=True):
            y = x + cluster(x, region) if is_watched(cluster) else cluster(x, region, residual=x)
            x = mlp(y)
        return x


def one_region(k: int, device: torch.device) -> LatticeGeometry:
    """A group as a region: k points in a row, one centre that is the mean of all."""
    return lattice_geometry((1, k), fold=1, centers=1, device=device)
