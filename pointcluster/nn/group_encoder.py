"""What each anchor learns from its group of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pointcluster.geometry import AnchorGeometry, LatticeGeometry, lattice_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.fps import anchor_numbers
from pointcluster.nn.batch_norm import BatchNorm
from pointcluster.nn.context_cluster import ContextCluster, check_features
from pointcluster.nn.given import check_gathered, given_anchors
from pointcluster.nn.plain import is_plain, is_watched
from pointcluster.nn.residual_mlp import ResidualMLP
from pointcluster.ops.precision import at_least_float32

CHUNK = 1 << 20
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
        geometry = given_anchors(pos, batch, batch_size, num, own=self.num, k=self.k)
        self._check(x, geometry)
        features, groups = self._features(x, geometry), len(geometry.anchor)
        # Without gradients or statistics of its own, groups know nothing of each other.
        alone = not (torch.is_grad_enabled() or self.training or torch.compiler.is_compiling())
        step = max(1, CHUNK // (self.k * self.linear.out_features)) if alone else max(1, groups)
        parts = [x.new_zeros(0, self.linear.out_features)]
        for start in range(0, groups, step):
            y = self._run(features(slice(start, start + step)), len(self.mlps))
            parts.append(y.unflatten(0, (-1, self.k)).amax(dim=1))
        return torch.cat(parts[1:] or parts), geometry.pos, geometry.batch

    @torch.no_grad()
    def similarities(self, x: Tensor, geometry: AnchorGeometry, block: int) -> Tensor:
        r"""How similar the points of each group are to its centre in one block, in evaluation.

        Shapes:
            - **output:** $(R, k)$
        """
        self._check(x, geometry)
        y = self._run(self._features(x, geometry)(slice(None)), block)
        _, clusters = self.clusters[block](y, one_region(self.k, y.device), return_clusters=True)
        return clusters.similarity.view(-1, self.k)

    def _check(self, x: Tensor, geometry: AnchorGeometry) -> None:
        check_gathered(geometry, self.k)
        if geometry.outside:
            raise ValueError("the geometry gathers zeros at a border, too: the layer takes points")
        check_features(x, geometry.num_points, self.in_channels, self.alpha, geometry.anchor.device)

    def _features(self, x: Tensor, geometry: AnchorGeometry) -> Callable[[slice], Tensor]:
        """A function of some groups that gives what their points begin with. [R * k, C]"""
        anchor, index, batch = geometry.anchor, geometry.grouping, geometry.batch
        cloud = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        cloud[index.reshape(-1)] = batch.repeat_interleave(self.k)
        # Differences are the same seen from the anchors' mean, and there they lose no digits.
        mean = scatter(x[anchor].detach(), batch, dim_size=geometry.batch_size, reduce="mean")
        std = self._spread(x, geometry) + self.EPS
        seen = (x - mean[cloud]) / std.to(x.dtype)[cloud, None]
        if not is_plain(self.linear, bias=False):  # it wants to be called, pair by pair

            def paired(rows: slice) -> Tensor:
                near = (seen[index[rows]] - seen[anchor[rows], None]) * self.alpha + self.beta
                here = x[anchor[rows], None].expand_as(near)
                return self._start(self.linear(torch.cat([near, here], dim=2).flatten(0, 1)))

            return paired
        near, here = self.linear.weight.split(self.in_channels, dim=1)
        u = nn.functional.linear(seen, near * self.alpha)
        bias = (near @ self.beta).to(u.dtype)
        a = nn.functional.linear(x[anchor], here) + bias - u[anchor]

        def summed(rows: slice) -> Tensor:
            chosen = u.index_select(0, index[rows].flatten()).unflatten(0, (-1, self.k))
            return self._start((chosen + a[rows, None]).flatten(0, 1))

        return summed

    def _start(self, x: Tensor) -> Tensor:
        return self.norm(x).relu_()

    def _spread(self, x: Tensor, geometry: AnchorGeometry) -> Tensor:
        """The standard deviation of all differences to the anchors, for each cloud. [B]"""
        difference = x[geometry.grouping] - x[geometry.anchor][:, None]  # [R, k, C]
        difference = at_least_float32(difference).flatten(1)
        batch, size = geometry.batch, geometry.batch_size
        count = scatter(torch.ones_like(difference[:, 0]), batch, dim_size=size)
        count = count * difference.size(1)
        mean = scatter(difference.sum(dim=1), batch, dim_size=size) / count.clamp_min(1)
        square = (difference - mean[batch, None]).square().sum(dim=1)
        variance = scatter(square, batch, dim_size=size) / (count - 1).clamp_min(1)
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
