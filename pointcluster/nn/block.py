"""The residual block around a context cluster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointcluster import ops
from pointcluster.geometry import ClusterGeometry, LatticeGeometry
from pointcluster.nn.context_cluster import Clusters, ContextCluster, check_features
from pointcluster.nn.drop_path import DropPath
from pointcluster.nn.hooks import is_plain_mlp, is_watched
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
        k: Points that a centre is the mean of; `None`: as many as a given geometry says.
        region_size: Most points a region; `None`: each cloud is one region.
        centers: How centres are chosen, `"fps"` or `"random"`.
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
        k: int | None = 9,
        region_size: int | None = None,
        centers: str = "fps",
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
        )
        self.norm2 = CloudNorm(channels)
        hidden = round(channels * mlp_ratio)
        self.mlp: Any = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )
        self.drop_path = DropPath(drop_path)
        self.scale1: nn.Parameter | None = None
        self.scale2: nn.Parameter | None = None
        if layer_scale is not None:
            self.scale1 = nn.Parameter(layer_scale * torch.ones(channels))
            self.scale2 = nn.Parameter(layer_scale * torch.ones(channels))

    def forward(
        self,
        x: Tensor,
        pos: Tensor | ClusterGeometry | LatticeGeometry,
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
        clouds: tuple[Tensor | None, int, int | None]
        like = self.cluster.channels, self.cluster.alpha
        if isinstance(geometry, LatticeGeometry):
            n = geometry.num_points
            check_features(x, None if x.size(0) % n == 0 else n, *like)
            clouds = (None, x.size(0) // n, n)
        else:
            # Clouds follow one another in every storage order: `batch` holds in the caller's, too.
            batch = geometry.batch
            check_features(x, len(batch), *like, batch.device)
            clouds = (batch, geometry.batch_size, geometry.cloud_size)
        of = None if clouds[2] else clouds[0]  # of one size, they need no index to be scaled
        y = self.norm1(x, *clouds)
        keep = self.drop_path.draw(clouds[1], x)
        # Where no cloud is left out the sum goes into the operator; who watches it sees it alone.
        alone = keep is None and not is_watched(self.cluster)
        y = self.cluster(
            y,
            geometry,
            residual=x if alone else None,
            scale=self.scale1 if alone else None,
            return_clusters=return_clusters,
        )
        y, clusters = y if return_clusters else (y, None)
        x = y if alone else _add(x, y, self.scale1, keep, of)
        y = self.norm2(x, *clouds)
        keep = self.drop_path.draw(clouds[1], x)
        alone = keep is None and self._by_weights()
        x = self._mlp(y, x) if alone else _add(x, self._mlp(y), self.scale2, keep, of)
        return x if clusters is None else (x, clusters)

    def _by_weights(self) -> bool:
        """Whether the MLP is what its weights say: nothing replaced, watched, or left out."""
        return is_plain_mlp(self.mlp)

    def _mlp(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The MLP, or what came in and the scaled MLP, whose sum costs nothing then."""
        if not self._by_weights():
            return self.mlp(x)
        first, last = self.mlp[0], self.mlp[3]
        weight, bias = last.weight, last.bias
        if residual is not None and self.scale2 is not None:
            weight, bias = weight * self.scale2[:, None], bias * self.scale2
        return ops.mlp(x, first.weight, first.bias, weight, bias, residual)


def _add(
    x: Tensor, y: Tensor, scale: Tensor | None, keep: Tensor | None, batch: Tensor | None
) -> Tensor:
    """Add a branch, scaled, and left out for some clouds: in one pass over the points."""
    if keep is None:
        return x + y if scale is None else torch.addcmul(x, y, scale.to(y.dtype))
    factor = keep[:, None] if scale is None else keep[:, None] * scale.to(y.dtype)  # [B, C]
    if batch is not None:
        return torch.addcmul(x, y, factor[batch])
    shape = (len(keep), -1, x.size(1))
    return torch.addcmul(x.view(shape), y.view(shape), factor[:, None]).view_as(x)
