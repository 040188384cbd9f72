"""The context cluster operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pointcluster import ops
from pointcluster.geometry import ClusterGeometry, LatticeGeometry, cluster_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.nn.hooks import is_plain
from pointcluster.ops.precision import is_autocast


class Clusters(NamedTuple):
    """Which centre each point was assigned to, one assignment a head."""

    index: Tensor  # type: ignore[assignment]
    """Number of the centre: region * centres a region + centre in the region. [N, heads]"""
    similarity: Tensor
    """The similarity s to it, in (0, 1). [N, heads]"""
    region: Tensor
    """Region of each point. [N]"""
    center: Tensor
    """Index of the point that each centre sits on. [R * M]"""


class ContextCluster(nn.Module):
    r"""The context cluster: points gather around centres and learn from their cluster.

    For the points of one region and one head, with $f, v$ linear maps of the features:

    $$ \begin{aligned}
    \text{propose}   &: & c_m &= \operatorname{mean}_{n \in G(m)} f_n, \quad
                          g_m = \operatorname{mean}_{n \in G(m)} v_n \\
    \text{assign}    &: & s_{mn} &= \sigma(\beta + \alpha \cos(c_m, f_n)), \quad
                          a(n) = \arg\max_m s_{mn} \\
    \text{aggregate} &: & h_m &= \frac{g_m + \sum_{a(n)=m} s_{mn} v_n}{1 + \sum_{a(n)=m} s_{mn}} \\
    \text{dispatch}  &: & y_n &= s_{a(n) n}\, h_{a(n)}
    \end{aligned} $$

    and a linear map of the heads' concatenated $y$. Of equally similar centres the first is taken.
    $G(m)$ are the k points of the region nearest to where centre m sits. Memory grows as
    N x (C + heads x centres): nothing holds regions x centres x points x channels. (With one
    channel a head every cosine is 1 or -1, and rounding decides; take more.)

    From "Image as Set of Points", Ma et al., ICLR 2023, <https://arxiv.org/abs/2303.01494>.

    Args:
        channels: Channels of input and output C.
        heads: Number of heads, each with its own centres' features and assignment.
        head_channels: Channels a head.
        num_centers: Centres a region.
        k: Points that a centre is the mean of; `None`: as many as a given geometry says.
        region_size: Most points a region; `None`: each cloud is one region.
        centers: How centres are chosen, `"fps"` (evenly) or `"random"`.

    Shapes:
        - **x:** $(N, C)$, **pos:** $(N, D)$, **batch:** $(N)$ sorted
        - **output:** $(N, C)$

    Raises:
        ValueError: A number is not positive, or an option is unknown.
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
    ) -> None:
        super().__init__()
        numbers = {"channels": channels, "heads": heads, "head_channels": head_channels}
        numbers["num_centers"] = num_centers
        for name, value in (numbers if k is None else numbers | {"k": k}).items():
            check_positive(name, value)
        if centers not in ("fps", "random"):
            raise ValueError(f"centers must be 'fps' or 'random', found {centers!r}")
        self.channels, self.heads, self.head_channels = channels, heads, head_channels
        self.num_centers, self.k, self.region_size = num_centers, k, region_size
        self.centers = centers
        width = heads * head_channels
        self.fv = nn.Linear(channels, 2 * width)  # f and v as one map
        self.proj = nn.Linear(width, channels)
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        x: Tensor,
        pos: Tensor | ClusterGeometry | LatticeGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        centers: Tensor | None = None,
        generator: torch.Generator | None = None,
        residual: Tensor | None = None,
        scale: Tensor | None = None,
        return_clusters: bool = False,
    ) -> Tensor | tuple[Tensor, Clusters]:
        r"""Cluster the points of each region, and let them learn from their cluster.

        Args:
            x: Features of the points.
            pos: Their positions, or the geometry worked out before by :func:`cluster_geometry` or,
                for points stored so, by :func:`lattice_geometry`, which stands for all that has to
                do with positions.
            batch: Sorted cloud index of each point, with positions.
            batch_size: Number of clouds, when the last ones may be empty.
            centers: Points to put the centres on, `num_centers` indices a cloud.
            generator: Source of randomness for randomly chosen centres.
            residual: What to add the output to $(N, C)$; it costs less here than afterwards.
            scale: What to multiply the output's channels by before $(C)$; likewise.
            return_clusters: Return the assignment, too.

        Raises:
            TypeError, ValueError: The point set is malformed, or `x` has another length, number of
                channels, dtype or device than needed.
        """
        geometry = self.geometry(
            pos, batch, batch_size=batch_size, centers=centers, generator=generator
        )
        around: Any = self._on_lattice if isinstance(geometry, LatticeGeometry) else self._on_points
        y, clusters = around(x, geometry, residual, scale, return_clusters)
        return y if clusters is None else (y, clusters)

    def geometry(
        self,
        pos: Tensor | ClusterGeometry | LatticeGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        centers: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ClusterGeometry | LatticeGeometry:
        """The geometry that this layer needs for these points; a given one is passed through.

        Raises:
            ValueError: A given geometry was built for another number of centres or neighbours, or
                there is none and the layer has no `k`.
        """
        if isinstance(pos, ClusterGeometry | LatticeGeometry):
            if any(each is not None for each in (batch, batch_size, centers, generator)):
                raise ValueError(
                    "batch, batch_size, centers and generator go with positions: a geometry "
                    "that is given has been worked out already"
                )
            if isinstance(pos, LatticeGeometry):
                found = (pos.num_centers, self.k)
            else:
                group = pos.regions.group
                found = (group.size(1), self.k if self.k is None else group.size(2))
            if found != (self.num_centers, self.k):
                raise ValueError(
                    f"the geometry has {found[0]} centres a region of {found[1]} points each, "
                    f"the layer needs {self.num_centers} of {self.k}"
                )
            return pos
        if self.k is None:
            raise ValueError("a layer without k takes a geometry that says it, not positions")
        return cluster_geometry(
            pos,
            batch,
            num_centers=self.num_centers,
            k=self.k,
            region_size=self.region_size,
            centers=self.centers if centers is None else centers,
            batch_size=batch_size,
            generator=generator,
        )

    def _on_points(
        self,
        x: Tensor,
        geometry: ClusterGeometry,
        residual: Tensor | None,
        scale: Tensor | None,
        return_clusters: bool,
    ) -> tuple[Tensor, Clusters | None]:
        check_features(x, len(geometry.batch), self.channels, self.alpha, geometry.batch.device)
        order = geometry.order
        if order is None:
            y, index, s = self._cluster(x, geometry.regions, residual, scale)
        else:
            y, index, s = self._cluster(x[order], geometry.regions, None, scale)
            y = torch.empty_like(y).index_copy(0, order, y)
            y = y if residual is None else residual + y
        return y, _clusters(index, s, geometry) if return_clusters else None

    def _on_lattice(
        self,
        x: Tensor,
        geometry: LatticeGeometry,
        residual: Tensor | None,
        scale: Tensor | None,
        return_clusters: bool,
    ) -> tuple[Tensor, Clusters | None]:
        """Regions of few shapes: all of one shape lie together, image by image."""
        n, channels = geometry.num_points, x.size(-1)
        whole = x.dim() == 2 and x.size(0) % n == 0
        check_features(x, None if whole else n, self.channels, self.alpha)
        count, start, parts = x.size(0) // n, 0, []
        for part in geometry.parts:
            size = part.num_regions * part.height * part.width
            points, under = (
                given if given is None or len(geometry.parts) == 1
                else given.view(count, n, channels).narrow(1, start, size).reshape(-1, channels)
                for given in (x, residual)
            )  # fmt: skip
            assert points is not None
            parts.append(self._cluster(points, part.regions, under, scale))
            start += size
        y, index, s = (
            each[0]
            if len(each) == 1
            else torch.cat([t.unflatten(0, (count, -1)) for t in each], dim=1).flatten(0, 1)
            for each in zip(*parts, strict=True)
        )
        if not return_clusters:
            return y, None
        region, center = geometry.centers_of(count)
        index = region[:, None] * self.num_centers + index
        return y, Clusters(index, s.detach(), region, center)

    def _cluster(
        self, x: Tensor, regions: ops.Regions, residual: Tensor | None, scale: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The operator by its weights, or around layers that want to be called."""
        if is_plain(self.fv, self.proj):
            out: Tensor = self.proj.weight
            bias: Tensor = self.proj.bias
            if scale is not None:
                out, bias = out * scale[:, None], bias * scale
            weights = ops.Weights(self.fv.weight, self.fv.bias, out, bias, self.alpha, self.beta)
            return ops.context_cluster(x, regions, weights, self.heads, residual)
        f, v = self.fv(x).unflatten(1, (2, self.heads, self.head_channels)).unbind(1)
        y, index, s = ops.gather_around(f, v, regions, self.alpha, self.beta)
        y = self.proj(y.flatten(1))
        y = y if scale is None else y * scale
        return y if residual is None else residual + y, index, s


def check_features(
    x: Tensor,
    num_points: int | None,
    channels: int,
    like: Tensor,
    device: torch.device | None = None,
) -> None:
    """Check that `x` has a row a point, a layer's channels, and dtype and device of a parameter.

    Raises:
        ValueError: It has not.
    """
    if x.dim() != 2 or x.size(0) != (num_points or x.size(0)) or x.size(1) != channels:
        raise ValueError(
            f"x must have shape [{num_points or 'N'}, {channels}] (points, channels), found "
            f"{list(x.shape)}"
        )
    device = device or like.device
    if x.device != like.device or device != like.device:
        raise ValueError(
            f"x is on {x.device}, the positions on {device}, the layer on {like.device}"
        )
    if x.dtype != like.dtype and not is_autocast(x):
        raise ValueError(f"x is {x.dtype}, the layer {like.dtype}: convert one of them")


def _clusters(index: Tensor, similarity: Tensor, geometry: ClusterGeometry) -> Clusters:
    """Number the centres over all regions, and put the points back into the caller's order."""
    regions, center, order = geometry.regions, geometry.center, geometry.order
    region = regions.region(len(index))
    index = region[:, None] * regions.num_centers + index
    similarity = similarity.detach()
    if order is not None:
        back = torch.empty_like(order)
        back[order] = torch.arange(len(back), device=back.device)
        index, similarity, region = index[back], similarity[back], region[back]
        center = order[center]
    return Clusters(index, similarity, region, center)
