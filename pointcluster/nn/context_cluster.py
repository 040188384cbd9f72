"""The context cluster operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pointcluster.geometry import ClusterGeometry, cluster_geometry
from pointcluster.geometry.check import check_positive

EPS = 1e-8


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
        k: Points that a centre is the mean of.
        region_size: Most points a region; `None`: each cloud is one region.
        centers: How centres are chosen, `"fps"` (evenly) or `"random"`.
        fuse: How a centre's k points become its features: `"mean"`, or `"linear"`, a linear map of
            them concatenated, nearest first.

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
        k: int = 9,
        region_size: int | None = None,
        centers: str = "fps",
        fuse: str = "mean",
    ) -> None:
        super().__init__()
        for name, value in [
            ("channels", channels),
            ("heads", heads),
            ("head_channels", head_channels),
            ("num_centers", num_centers),
            ("k", k),
        ]:
            check_positive(name, value)
        if centers not in ("fps", "random"):
            raise ValueError(f"centers must be 'fps' or 'random', found {centers!r}")
        if fuse not in ("mean", "linear"):
            raise ValueError(f"fuse must be 'mean' or 'linear', found {fuse!r}")
        self.heads, self.head_channels = heads, head_channels
        self.num_centers, self.k, self.region_size = num_centers, k, region_size
        self.centers = centers
        width = heads * head_channels
        self.fv = nn.Linear(channels, 2 * width)  # f and v as one map
        self.fuse = nn.Linear(2 * width * k, 2 * width) if fuse == "linear" else None
        self.proj = nn.Linear(width, channels)
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

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
        """Cluster the points of each region, and let them learn from their cluster.

        Args:
            x: Features of the points.
            pos: Their positions, or the geometry worked out before by :func:`cluster_geometry`,
                which stands for all that follows but the last.
            batch: Sorted cloud index of each point, with positions.
            batch_size: Number of clouds, when the last ones may be empty.
            centers: Points to put the centres on, `num_centers` indices a cloud.
            generator: Source of randomness for randomly chosen centres.
            return_clusters: Return the assignment, too.

        Raises:
            TypeError, ValueError: The point set is malformed, or `x` has another length, number of
                channels, dtype or device than needed.
        """
        geometry = self.geometry(
            pos, batch, batch_size=batch_size, centers=centers, generator=generator
        )
        check_features(x, geometry.batch, self.fv.weight)
        fv = self.fv(x if geometry.order is None else x[geometry.order])
        cluster = self._in_segments if geometry.pool is None else self._in_slices
        y, index, similarity = cluster(fv, geometry)
        y = self.proj(y)
        if geometry.order is not None:
            y = torch.empty_like(y).index_copy(0, geometry.order, y)
        if not return_clusters:
            return y
        return y, _clusters(index, similarity, geometry)

    def geometry(
        self,
        pos: Tensor | ClusterGeometry,
        batch: Tensor | None = None,
        *,
        batch_size: int | None = None,
        centers: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> ClusterGeometry:
        """The geometry that this layer needs for these points; a given one is passed through.

        Raises:
            ValueError: A given geometry was built for another number of centres or neighbours.
        """
        if isinstance(pos, ClusterGeometry):
            if any(each is not None for each in (batch, batch_size, centers, generator)):
                raise ValueError(
                    "batch, batch_size, centers and generator go with positions: a geometry "
                    "that is given has been worked out already"
                )
            found = (pos.num_centers, pos.grouping.size(1))
            if found != (self.num_centers, self.k):
                raise ValueError(
                    f"the geometry has {found[0]} centres a region of {found[1]} points each, "
                    f"the layer needs {self.num_centers} of {self.k}"
                )
            return pos
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

    def _propose(self, fv: Tensor, geometry: ClusterGeometry) -> Tensor:
        """Features of all centres [R * M, 2 * heads * channels a head]."""
        if self.fuse is not None:
            return self.fuse(fv[geometry.grouping].flatten(1))
        if geometry.pool is not None:
            pool = geometry.pool.to(fv.dtype)
            return torch.bmm(pool, fv.view(pool.size(0), pool.size(2), -1)).flatten(0, 1)
        weight = geometry.weight.to(fv.dtype)
        center = fv.new_zeros(len(weight), fv.size(1))
        for slot in range(self.k):  # one neighbour at a time: no [R * M, k, C]
            chosen = fv.index_select(0, geometry.grouping[:, slot])
            center = torch.addcmul(center, weight[:, slot, None], chosen)
        return center

    def _score(self, cos: Tensor, geometry: ClusterGeometry, region: Tensor | None) -> Tensor:
        """The similarity before the sigmoid; a centre that repeats another one takes no point."""
        score = self.beta + self.alpha * cos
        if geometry.repeats is None:
            return score
        repeats = geometry.repeats[0 if self.fuse is None else 1].view(-1, geometry.num_centers)
        repeats = repeats[:, None, None] if region is None else repeats[region, None]
        return score.masked_fill(repeats, -torch.inf)

    def _in_slices(self, fv: Tensor, geometry: ClusterGeometry) -> tuple[Tensor, Tensor, Tensor]:
        """Regions of equal size: each is a slice, and every step a batched matrix product."""
        m = geometry.num_centers
        size = geometry.region_size or 0  # a number, where there are slices
        points = fv.view(-1, size, 2, self.heads, self.head_channels)  # [R, P, 2, H, c]
        f, v = points.permute(2, 0, 3, 1, 4).unbind(0)  # [R, H, P, c]
        center = self._propose(fv, geometry).view(-1, m, 2, self.heads, self.head_channels)
        c, g = center.permute(2, 0, 3, 1, 4).unbind(0)  # [R, H, M, c]
        f, c = _at_least_float32(f), _at_least_float32(c)
        with torch.autocast(fv.device.type, enabled=False):
            norm = _norm(f)[..., None] * _norm(c)[..., None, :]
            cos = torch.matmul(f, c.transpose(-1, -2)) / norm  # [R, H, P, M]
            score, index = self._score(cos, geometry, None).max(dim=-1)  # [R, H, P]
            s = score.sigmoid()
        own = torch.zeros_like(cos, dtype=v.dtype).scatter(
            -1, index[..., None], s[..., None].to(v.dtype)
        )
        h = g + torch.matmul(own.transpose(-1, -2), v)  # [R, H, M, c]
        h = h / (1 + own.sum(dim=-2)[..., None])
        y = torch.matmul(own, h).transpose(1, 2)  # [R, P, H, c]
        index = index.transpose(1, 2).reshape(-1, self.heads)
        return y.reshape(fv.size(0), -1), index, s.transpose(1, 2).reshape(-1, self.heads)

    def _in_segments(self, fv: Tensor, geometry: ClusterGeometry) -> tuple[Tensor, Tensor, Tensor]:
        """Regions of any size: a scatter and a gather."""
        n, m, region = fv.size(0), geometry.num_centers, geometry.region
        f, v = fv.view(n, 2, self.heads, self.head_channels).unbind(1)  # [N, H, c]
        center = self._propose(fv, geometry).view(-1, m, 2, self.heads, self.head_channels)
        c, g = center.unbind(2)  # [R, M, H, c]
        f, c = _at_least_float32(f), _at_least_float32(c)
        norm = _norm(c)  # [R, M, H]
        # One centre at a time: no [N, M, c].
        dot = [(f * c[region, j]).sum(dim=-1) / norm[region, j] for j in range(m)]
        cos = torch.stack(dot, dim=-1) / _norm(f)[..., None]  # [N, H, M]
        score, index = self._score(cos, geometry, region).max(dim=-1)  # [N, H]
        s = score.sigmoid()
        head = torch.arange(self.heads, device=fv.device)
        own = ((region[:, None] * m + index) * self.heads + head).view(-1)  # [N * H]
        weight = s.to(v.dtype).reshape(-1, 1)
        slots = c.size(0) * m * self.heads
        v = weight * v.reshape(n * self.heads, self.head_channels)
        h = g.reshape(slots, self.head_channels) + scatter(v, own, dim_size=slots, reduce="sum")
        h = h / (1 + scatter(weight, own, dim_size=slots, reduce="sum"))
        y = weight * h[own]
        return y.view(n, self.heads * self.head_channels), index, s


def check_features(x: Tensor, batch: Tensor, weight: Tensor) -> None:
    """Check that `x` has a row a point, and the channels, dtype and device of a layer's weight.

    Raises:
        ValueError: It has not.
    """
    if x.dim() != 2 or x.size(0) != batch.size(0) or x.size(1) != weight.size(1):
        raise ValueError(
            f"x must have shape [{batch.size(0)}, {weight.size(1)}] (points, channels), "
            f"found {list(x.shape)}"
        )
    if x.device != weight.device or batch.device != weight.device:
        raise ValueError(
            f"x is on {x.device}, the positions on {batch.device}, the layer on {weight.device}"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x is {x.dtype}, the layer {weight.dtype}: convert one of them")


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1).clamp_min(EPS)


def _at_least_float32(x: Tensor) -> Tensor:
    """Which centre wins is decided in float32 where features are half as wide."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _clusters(index: Tensor, similarity: Tensor, geometry: ClusterGeometry) -> Clusters:
    """Number the centres over all regions, and put the points back into the caller's order."""
    region, center = geometry.region, geometry.center
    index = region[:, None] * geometry.num_centers + index
    similarity = similarity.detach()
    if geometry.order is not None:
        back = torch.empty_like(geometry.order)
        back[geometry.order] = torch.arange(len(back), device=back.device)
        index, similarity, region = index[back], similarity[back], region[back]
        center = geometry.order[center]
    return Clusters(index, similarity, region, center)
