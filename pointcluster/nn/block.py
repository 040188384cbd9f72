"""The residual block around a context cluster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointcluster.geometry import ClusterGeometry
from pointcluster.nn.context_cluster import Clusters, ContextCluster, check_features
from pointcluster.nn.drop_path import DropPath
from pointcluster.nn.norm import CloudNorm


class ContextClusterBlock(nn.Module):
    r"""Context cluster and MLP, each normalised per cloud and added to what came in.

    $$ x \leftarrow x + \lambda_1 \odot \operatorname{cluster}(\operatorname{norm}(x)), \qquad
       x \leftarrow x + \lambda_2 \odot \operatorname{mlp}(\operatorname{norm}(x)) $$

    From "Image as Set of Points", Ma et al., ICLR 2023; the scales $\lambda$ are those of "Going
    deeper with Image Transformers", Touvron et al., ICCV 2021.

    Args:
        channels: Channels of input and output C.
        heads: Heads of the context cluster.
        head_channels: Channels a head.
        num_centers: Centres a region.
        k: Points that a centre is the mean of.
        region_size: Most points a region; `None`: each cloud is one region.
        centers: How centres are chosen, `"fps"` or `"random"`.
        fuse: How a centre's points become its features, `"mean"` or `"linear"`.
        mlp_ratio: Hidden channels of the MLP as a multiple of C.
        dropout: Share of hidden channels left out in training.
        drop_path: Probability of leaving out a branch for a cloud in training.
        layer_scale: Start of the scales; `None` leaves them out.

    Shapes:
        - **x:** $(N, C)$, **pos:** $(N, D)$, **batch:** $(N)$ sorted
        - **output:** $(N, C)$
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 4,
        head_channels: int = 24,
        num_centers: int = 4,
        k: int = 9,
        region_size: int | None = None,
        centers: str = "fps",
        fuse: str = "mean",
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = CloudNorm(channels)
        self.cluster = ContextCluster(
            channels,
            heads=heads,
            head_channels=head_channels,
            num_centers=num_centers,
            k=k,
            region_size=region_size,
            centers=centers,
            fuse=fuse,
        )
        self.norm2 = CloudNorm(channels)
        hidden = round(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )
        self.drop_path = DropPath(drop_path)
        for name in ("scale1", "scale2"):
            scale = None if layer_scale is None else layer_scale * torch.ones(channels)
            setattr(self, name, None if scale is None else nn.Parameter(scale))

    def forward(
        self,
        x: Tensor,
        pos: Tensor | ClusterGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        centers: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_clusters: bool = False,
    ) -> Tensor | tuple[Tensor, Clusters]:
        """Apply the block; the arguments are those of :class:`ContextCluster`."""
        geometry = self.cluster.geometry(
            pos, batch, batch_size=batch_size, centers=centers, generator=generator
        )
        check_features(x, geometry.batch, self.cluster.fv.weight)
        # Clouds follow one another in every storage order: `batch` holds in the caller's, too.
        clouds = (geometry.batch, geometry.batch_size)
        y = self.norm1(x, *clouds, geometry.cloud_size)
        found = None
        if return_clusters:
            y, found = self.cluster(y, geometry, return_clusters=True)
        else:
            y = self.cluster(y, geometry)
        x = x + self.drop_path(y if self.scale1 is None else y * self.scale1, *clouds)
        y = self.mlp(self.norm2(x, *clouds, geometry.cloud_size))
        x = x + self.drop_path(y if self.scale2 is None else y * self.scale2, *clouds)
        return x if found is None else (x, found)
