"""The networks of others that benchmarks/peers.py compares with, each as published.

They are written for the comparison: neighbours by this library's own search, edge convolutions and
pooling where they cost least, so that a slow peer is slow by design and not by neglect.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, global_max_pool, global_mean_pool
from torch_geometric.utils import scatter

from pointcluster.geometry import fps, knn


class TNet(nn.Module):
    r"""The matrix that PointNet turns a cloud by: a small PointNet, the identity at first.

    Shapes:
        - **x:** $(N, C)$; **output:** $(B, C, C)$
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.points = MLP([channels, 64, 128, 1024], plain_last=False)
        self.cloud = MLP([1024, 512, 256], plain_last=False)
        self.matrix = nn.Linear(256, channels * channels)
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, x: Tensor, batch: Tensor, size: int) -> Tensor:
        turn = self.matrix(self.cloud(maximum(self.points(x), batch, size)))
        identity = torch.eye(self.channels, dtype=turn.dtype, device=turn.device)
        return turn.view(-1, self.channels, self.channels) + identity


class PointNet(nn.Module):
    """PointNet with both T-nets, as published, 3.5M parameters.

    "PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation", Qi et al.,
    CVPR 2017. `penalty`, part of the loss, keeps the second T-net's matrix close to orthogonal.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.config = {"name": "pointnet", "num_classes": num_classes}
        self.turn_points, self.turn_features = TNet(3), TNet(64)
        self.points1 = MLP([3, 64, 64], plain_last=False)
        self.points2 = MLP([64, 64, 128, 1024], plain_last=False)
        self.cloud = MLP([1024, 512, 256, num_classes], dropout=[0.0, 0.3, 0.0])
        self.penalty: Tensor | float = 0.0

    def forward(self, data: Batch) -> Tensor:
        batch, size = data.batch, data.num_graphs
        x = turned(data.pos, self.turn_points(data.pos, batch, size), batch)
        x = self.points1(x)
        turn = self.turn_features(x, batch, size)
        gap = turn @ turn.mT - torch.eye(64, dtype=turn.dtype, device=turn.device)
        self.penalty = 0.001 * torch.linalg.matrix_norm(gap).mean()
        x = self.points2(turned(x, turn, batch))
        return self.cloud(maximum(x, batch, size))


class EdgeConvolution(nn.Module):
    r"""The maximum over neighbours of a map of a point and of the way to its neighbour.

    $$ y_i = \max_j \sigma(\text{BN}(W [x_j - x_i, x_i])) $$

    Its linear map is worked out once a point instead of once an edge,
    $W [x_j - x_i, x_i] = W_1 x_j + (W_2 - W_1) x_i$. Normalisation and the leaky ReLU, which keep
    an order or turn it around, come after the maximum, and moments over edges are put together
    from those over points.

    Shapes:
        - **x:** $(N, C)$, **near:** $(N, k)$; **output:** $(N, C_{out})$
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        way, own = self.linear.weight.chunk(2, dim=1)
        a, b = nn.functional.linear(x, own - way), nn.functional.linear(x, way)
        k, norm = near.size(1), self.norm
        seen = near.flatten().bincount(minlength=len(x)).to(x.dtype)[:, None] / k
        mean_a, mean_b = a.mean(dim=0), (seen * b).mean(dim=0)
        # Around their means, so that a variance is no small difference of large numbers.
        a, b = a - mean_a, b - mean_b
        with torch.no_grad():  # a negative scale makes the least one the largest
            which = (b * torch.where(norm.weight < 0, -1, 1))[near].max(dim=1).indices
        top = a + b.gather(0, near.gather(1, which))
        mean, var = mean_a + mean_b, norm.running_var
        if self.training:
            both = a * nn.functional.embedding_bag(near, b, mode="mean")
            var = (a * a + seen * b * b + 2 * both).mean(dim=0)
            self._remember(mean.detach(), var.detach(), near.numel())
        else:
            top = top + mean - norm.running_mean
        top = top * (norm.weight * (var + norm.eps).rsqrt()) + norm.bias
        return nn.functional.leaky_relu(top, 0.2)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running moments, as batch normalisation does."""
        self.norm.running_mean.lerp_(mean, self.norm.momentum)
        self.norm.running_var.lerp_(var * count / (count - 1), self.norm.momentum)
        self.norm.num_batches_tracked.add_(1)


class DGCNN(nn.Module):
    """DGCNN as published: four dynamic edge convolutions of 20 neighbours, 1.8M parameters.

    "Dynamic Graph CNN for Learning on Point Clouds", Wang et al., TOG 2019.
    """

    def __init__(self, num_classes: int, k: int = 20) -> None:
        super().__init__()
        self.config = {"name": "dgcnn", "num_classes": num_classes}
        self.k = k
        self.convs = nn.ModuleList(
            EdgeConvolution(*channels) for channels in ((3, 64), (64, 64), (64, 128), (128, 256))
        )
        act = {"act": "leaky_relu", "act_kwargs": {"negative_slope": 0.2}}
        self.wide = MLP([64 + 64 + 128 + 256, 1024], plain_last=False, bias=False, **act)
        self.cloud = MLP([2048, 512, 256, num_classes], dropout=[0.5, 0.5, 0.0], **act)

    def forward(self, data: Batch) -> Tensor:
        batch, size, sizes = data.batch, data.num_graphs, data.ptr.diff().tolist()
        near = knn(data.pos, data.pos, self.k, batch, batch, batch_size=size)
        found = [self.convs[0](data.pos, near)]
        for conv in self.convs[1:]:
            found.append(conv(found[-1], nearest_features(found[-1], self.k, sizes)))
        x = self.wide(torch.cat(found, dim=1))
        mean = global_mean_pool(x, batch, size)
        return self.cloud(torch.cat([maximum(x, batch, size), mean], dim=1))


class SetAbstraction(nn.Module):
    """Farthest points, and for each the maximum of an MLP over the points in a ball around it.

    Of more than `k` points in the ball the nearest count. Each point is computed once: published
    code fills up a ball of fewer by repeating one of them, which alters no maximum.
    """

    def __init__(self, share: float, radius: float, channels: Sequence[int], k: int = 64) -> None:
        super().__init__()
        self.share, self.radius, self.k = share, radius, k
        self.mlp = MLP(list(channels), plain_last=False)

    def forward(
        self, x: Tensor | None, pos: Tensor, batch: Tensor, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        anchor = fps(pos, self.share, batch, batch_size=size)
        middle, cloud = pos[anchor], batch[anchor]
        near = knn(pos, middle, self.k, batch, cloud, batch_size=size)
        relative = pos[near] - middle[:, None]
        inside = relative.norm(dim=2) <= self.radius
        near, relative = near[inside], relative[inside]
        grouped = relative if x is None else torch.cat([x[near], relative], dim=1)
        found = torch.segment_reduce(self.mlp(grouped), "max", lengths=inside.sum(dim=1))
        return found, middle, cloud


class PointNet2(nn.Module):
    """PointNet++ with single-scale grouping and the published widths, 1.5M parameters.

    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", Qi et al.,
    NeurIPS 2017.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.config = {"name": "pointnet2", "num_classes": num_classes}
        self.stage1 = SetAbstraction(0.5, 0.2, [3, 64, 64, 128], k=32)
        self.stage2 = SetAbstraction(0.25, 0.4, [128 + 3, 128, 128, 256])
        self.wide = MLP([256 + 3, 256, 512, 1024], plain_last=False)
        self.cloud = MLP([1024, 512, 256, num_classes], dropout=[0.5, 0.5, 0.0])

    def forward(self, data: Batch) -> Tensor:
        size = data.num_graphs
        x, pos, batch = self.stage1(None, data.pos, data.batch, size)
        x, pos, batch = self.stage2(x, pos, batch, size)
        return self.cloud(maximum(self.wide(torch.cat([x, pos], dim=1)), batch, size))


class ResidualMLP(nn.Module):
    """Two linear maps with a bottleneck between them, around which the input goes."""

    def __init__(self, channels: int, bottleneck: int = 4) -> None:
        super().__init__()
        inner = channels // bottleneck
        self.mlp = nn.Sequential(
            nn.Linear(channels, inner),
            nn.BatchNorm1d(inner),
            nn.ReLU(),
            nn.Linear(inner, channels),
            nn.BatchNorm1d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.mlp(x))


class PointMLPStage(nn.Module):
    """Half of the points, each with its neighbours normalised, through residual MLPs."""

    def __init__(self, channels: int, out_channels: int, blocks: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.alpha = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.transfer = MLP([2 * channels, out_channels], plain_last=False)
        self.groups = nn.Sequential(*(ResidualMLP(out_channels) for _ in range(blocks)))
        self.points = nn.Sequential(*(ResidualMLP(out_channels) for _ in range(blocks)))

    def forward(
        self, x: Tensor, pos: Tensor, batch: Tensor, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        anchor = fps(pos, 0.5, batch, batch_size=size)
        middle, cloud, own = pos[anchor], batch[anchor], x[anchor]
        near = knn(pos, middle, self.k, batch, cloud, batch_size=size)
        y = x[near] - own[:, None]  # [M, k, C]
        square = scatter(y.square().mean(dim=(1, 2)), cloud, dim_size=size, reduce="mean")
        mean = scatter(y.mean(dim=(1, 2)), cloud, dim_size=size, reduce="mean")
        std = (square - mean.square()).clamp(min=0).sqrt()
        y = self.alpha * y / (std[cloud, None, None] + 1e-5) + self.beta
        y = torch.cat([y, own[:, None].expand_as(y)], dim=2).flatten(0, 1)
        y = self.groups(self.transfer(y)).view(*near.shape, -1).amax(dim=1)
        return self.points(y), middle, cloud


class PointMLP(nn.Module):
    """PointMLP-elite, the small one of the published two, 0.7M parameters.

    "Rethinking Network Design and Local Geometry in Point Cloud: A Simple Residual MLP Framework",
    Ma et al., ICLR 2022.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.config = {"name": "pointmlp", "num_classes": num_classes}
        self.embed = MLP([3, 32], plain_last=False)
        widths, blocks = (32, 64, 128, 256, 256), (1, 1, 2, 1)
        self.stages = nn.ModuleList(
            PointMLPStage(widths[s], widths[s + 1], blocks[s], k=24) for s in range(4)
        )
        self.cloud = MLP([256, 512, 256, num_classes], dropout=[0.5, 0.5, 0.0])

    def forward(self, data: Batch) -> Tensor:
        x, pos, batch, size = self.embed(data.pos), data.pos, data.batch, data.num_graphs
        for stage in self.stages:
            x, pos, batch = stage(x, pos, batch, size)
        return self.cloud(maximum(x, batch, size))


def equal_clouds(batch: Tensor, size: int) -> bool:
    """Whether all clouds have the same number of points, so that they are rows of one tensor."""
    points = len(batch) // size
    return len(batch) % size == 0 and bool((batch.view(size, points).T == batch[::points]).all())


def maximum(x: Tensor, batch: Tensor, size: int) -> Tensor:
    """The maximum over each cloud [B, C]."""
    if equal_clouds(batch, size):  # faster than a scatter
        return x.view(size, -1, x.size(1)).amax(dim=1)
    return global_max_pool(x, batch, size)


def turned(x: Tensor, matrix: Tensor, batch: Tensor) -> Tensor:
    """Each cloud's points times its matrix."""
    if equal_clouds(batch, len(matrix)):
        return torch.bmm(x.view(len(matrix), -1, x.size(1)), matrix).flatten(0, 1)
    return torch.einsum("nc,ncd->nd", x, matrix[batch])


@torch.no_grad()
def nearest_features(x: Tensor, k: int, sizes: Sequence[int]) -> Tensor:
    """The k points of a cloud whose features are nearest, by a matrix product [N, k].

    `pointcluster.geometry.knn` gives the same ones, but works its distances out axis by axis,
    which is slow for 64 axes. A cloud of fewer points repeats them.
    """
    found, start = [], 0
    slot = torch.arange(k, device=x.device)
    for part, n in zip(x.split(list(sizes)), sizes, strict=True):
        near = torch.cdist(part, part).topk(min(k, n), largest=False).indices
        found.append(near[:, slot % n] + start)
        start += n
    return torch.cat(found)
