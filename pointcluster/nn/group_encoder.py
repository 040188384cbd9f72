"""What each anchor learns from its group of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric.utils import scatter

from pointcluster.geometry import AnchorGeometry, LatticeGeometry, lattice_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.geometry.fps import anchor_numbers
from pointcluster.nn.batch_norm import BatchNorm
from pointcluster.nn.context_cluster import ContextCluster, check_features
from pointcluster.nn.given import check_gathered, given_anchors
from pointcluster.nn.group_block import Block
from pointcluster.nn.group_norm import Affine
from pointcluster.nn.group_spread import GroupSpread
from pointcluster.nn.infer_groups import infer_groups
from pointcluster.nn.lean_groups import LeanGroups
from pointcluster.nn.residual_mlp import ResidualMLP


class GroupEncoder(nn.Module):
    r"""Keep anchors, each with what context clusters and MLPs learn from its k nearest points.

    A group's features are seen from its anchor's, at the scale of their cloud, beside the anchor's:

    $$ x_{mj} = \operatorname{relu}\Big(\operatorname{norm}\Big(W \Big[\alpha \odot
       \frac{x_{n_j} - x_{a_m}}{\sigma + \epsilon} + \beta,\ x_{a_m}\Big]\Big)\Big) $$

    with $\sigma$ the standard deviation of all $x_{n_j} - x_{a_m}$ of the cloud. Then, block by
    block, each group is one region of a context cluster with one centre, added to what came in, and
    goes through an MLP. The maximum over the group is the anchor's.

    $W$ is applied before the gathering, once a point and not once a neighbour, and groups are
    worked on some at a time: memory grows as R x k x C for training (two such tensors a block), and
    not at all so without gradients. A cloud of n < k points fills its groups by repeating them:
    slot j holds its neighbour j mod n.

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
        u, a = self._points(x, geometry)
        if not len(geometry.anchor):
            return a, geometry.pos, geometry.batch
        # All normalisations must be of one mind, and the library's own (not SyncBatchNorm, say).
        kinds = {(type(n), n.training, n.running_mean is None, n.eps) for n in self._norms()}
        lean = not (
            torch.compiler.is_compiling()
            or torch.is_autocast_enabled(x.device.type)
            or len(kinds) > 1
            or type(self.norm) is not BatchNorm
        )
        y = self._lean(u, a, geometry) if lean else self._plain(u, a, geometry)
        return y, geometry.pos, geometry.batch

    @torch.no_grad()
    def similarities(self, x: Tensor, geometry: AnchorGeometry, block: int) -> Tensor:
        r"""How similar the points of each group are to its centre in one block, in evaluation.

        Shapes:
            - **output:** $(R, k)$
        """
        self._check(x, geometry)
        u, a = self._points(x, geometry)
        first, *others = self._known()
        affines = list(zip(others[::2], others[1::2], strict=True))
        return infer_groups(
            u, a, geometry.grouping, first, self._blocks(), affines, similarity_of=block
        )

    def _check(self, x: Tensor, geometry: AnchorGeometry) -> None:
        check_gathered(geometry, self.k)
        if geometry.outside:
            raise ValueError("the geometry gathers zeros at a border, too: the layer takes points")
        check_features(x, geometry.num_points, self.alpha[None], geometry.anchor.device)

    def _points(self, x: Tensor, geometry: AnchorGeometry) -> tuple[Tensor, Tensor]:
        """The linear map of points and of anchors, of which a pair is the sum. [N, C], [R, C]"""
        anchor, index, batch = geometry.anchor, geometry.grouping, geometry.batch
        std = GroupSpread.apply(x, anchor, index, batch, geometry.batch_size)
        cloud = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        cloud[index.reshape(-1)] = batch.repeat_interleave(self.k)
        near, own = self.linear.weight.split(self.in_channels, dim=1)
        # Differences are the same seen from the anchors' mean, and there they lose no digits.
        mean = scatter(x[anchor].detach(), batch, dim_size=geometry.batch_size, reduce="mean")
        u = nn.functional.linear(x - mean[cloud], near * self.alpha)
        u = u / (std + self.EPS).to(u.dtype)[cloud, None]
        bias = (near @ self.beta).to(u.dtype)
        return u, nn.functional.linear(x[anchor], own) + bias - u[anchor]

    def _plain(self, u: Tensor, a: Tensor, geometry: AnchorGeometry) -> Tensor:
        """Layer after layer, all groups at once."""
        groups = len(a)
        x = (u[geometry.grouping] + a[:, None]).flatten(0, 1)
        x = self.norm(x).relu()
        region = one_region(self.k, x.device)
        for cluster, mlp in zip(self.clusters, self.mlps, strict=True):
            x = mlp(x + cluster(x, region))
        return x.view(groups, self.k, -1).amax(dim=1)

    def _lean(self, u: Tensor, a: Tensor, geometry: AnchorGeometry) -> Tensor:
        """The same, some groups at a time."""
        index, blocks = geometry.grouping, self._blocks()
        norms = self._norms()
        own_statistics = self.norm.training or self.norm.running_mean is None
        own_statistics = own_statistics and index.numel() > 1
        flat = [self.norm.weight, self.norm.bias, *(each for block in blocks for each in block)]
        if not own_statistics and not (torch.is_grad_enabled() and _any_grad(u, a, *flat)):
            first, *others = self._known()
            affines = list(zip(others[::2], others[1::2], strict=True))
            return infer_groups(u, a, index, first, blocks, affines)
        known: Any = None
        if not own_statistics:
            known = [(each.running_mean, each.running_var) for each in norms]
        y, *stats = LeanGroups.apply(u, a, index, self.norm.eps, known, *flat)
        if own_statistics:
            for each, mean, var in zip(norms, stats[::2], stats[1::2], strict=True):
                _update(each, mean, var, index.numel())
        return y

    def _norms(self) -> list[Any]:
        """The normalisations, in the order in which features pass them."""
        return [self.norm, *(each for mlp in self.mlps for each in (mlp.norm1, mlp.norm2))]

    def _known(self) -> list[Affine]:
        """The normalisations by their running statistics."""
        return [
            Affine.of(each.running_mean, each.running_var, each.weight, each.bias, each.eps)
            for each in self._norms()
        ]

    def _blocks(self) -> list[Block]:
        blocks = []
        for cluster, mlp in zip(self.clusters, self.mlps, strict=True):
            to_f, to_v = cluster.fv.weight.chunk(2)
            f_bias, v_bias = cluster.fv.bias.chunk(2)
            blocks.append(
                Block(
                    to_f=to_f,
                    f_bias=f_bias,
                    to_v=to_v,
                    v_bias=v_bias,
                    to_out=cluster.proj.weight,
                    out_bias=cluster.proj.bias,
                    alpha=cluster.alpha,
                    beta=cluster.beta,
                    w1=mlp.linear1.weight,
                    gamma1=mlp.norm1.weight,
                    shift1=mlp.norm1.bias,
                    w2=mlp.linear2.weight,
                    gamma2=mlp.norm2.weight,
                    shift2=mlp.norm2.bias,
                )
            )
        return blocks


def one_region(k: int, device: torch.device) -> LatticeGeometry:
    """A group as a region: k points in a row, one centre that is the mean of all."""
    return lattice_geometry((1, k), fold=1, centers=1, device=device)


def _any_grad(*tensors: Tensor) -> bool:
    return any(each.requires_grad for each in tensors)


@torch.no_grad()
def _update(norm: _BatchNorm, mean: Tensor, var: Tensor, count: int) -> None:
    """Take a batch's statistics into the running ones, as the layer itself does."""
    if not norm.training or norm.running_mean is None or norm.running_var is None:
        return
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean), factor or 0.0)
    norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var), factor or 0.0)
