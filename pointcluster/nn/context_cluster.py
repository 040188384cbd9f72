"""The context cluster operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import scatter

from pointcluster.geometry import ClusterGeometry, LatticeGeometry, cluster_geometry
from pointcluster.geometry.check import check_positive
from pointcluster.nn.lifted import at_least_float32, lifted_cluster, norm
from pointcluster.nn.plain import is_plain


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
        k: int | None = 9,
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
        ]:
            check_positive(name, value)
        if k is not None:
            check_positive("k", k)
        elif fuse == "linear":
            raise ValueError("fuse = 'linear' needs the number of points k that it fuses")
        if centers not in ("fps", "random"):
            raise ValueError(f"centers must be 'fps' or 'random', found {centers!r}")
        if fuse not in ("mean", "linear"):
            raise ValueError(f"fuse must be 'mean' or 'linear', found {fuse!r}")
        self.heads, self.head_channels = heads, head_channels
        self.num_centers, self.k, self.region_size = num_centers, k, region_size
        self.centers = centers
        width = heads * head_channels
        self.fv = nn.Linear(channels, 2 * width)  # f and v as one map
        self.fuse = nn.Linear(2 * width * (k or 0), 2 * width) if fuse == "linear" else None
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
        return_clusters: bool = False,
    ) -> Tensor | tuple[Tensor, Clusters]:
        """Cluster the points of each region, and let them learn from their cluster.

        Args:
            x: Features of the points.
            pos: Their positions, or the geometry worked out before by :func:`cluster_geometry` or,
                for points stored so, by :func:`lattice_geometry`, which stands for all that
                follows but the last.
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
        y, clusters = self.add_to(None, x, geometry, return_clusters=return_clusters)
        return y if clusters is None else (y, clusters)

    def add_to(
        self,
        onto: Tensor | None,
        x: Tensor,
        geometry: ClusterGeometry | LatticeGeometry,
        *,
        scale: Tensor | None = None,
        return_clusters: bool = False,
    ) -> tuple[Tensor, Clusters | None]:
        r"""Add the output for `x`, times a scale a channel, onto other features.

        Where regions are slices this takes no pass over the points of its own: the scale goes into
        the last linear map, and the sum into the product that dispatches.

        Shapes:
            - **onto**, **x:** $(N, C)$, **scale:** $(C)$
            - **output:** $(N, C)$
        """
        if not is_plain(self.fv, self.proj):  # they want to be called
            y, found = self._add_to(None, x, geometry, None, return_clusters)
            y = y if scale is None else y * scale
            return (y if onto is None else onto + y), found
        proj: tuple[Tensor, Tensor] = (self.proj.weight, self.proj.bias)
        if scale is not None:
            proj = (proj[0] * scale[:, None], proj[1] * scale)
        return self._add_to(onto, x, geometry, proj, return_clusters)

    def _add_to(
        self,
        onto: Tensor | None,
        x: Tensor,
        geometry: ClusterGeometry | LatticeGeometry,
        proj: tuple[Tensor, Tensor] | None,
        return_clusters: bool,
    ) -> tuple[Tensor, Clusters | None]:
        """The same, given weight and bias of the last linear map; `None`: the layer is called."""
        if isinstance(geometry, LatticeGeometry):
            return self._on_lattice(onto, x, geometry, proj, return_clusters)
        check_features(x, len(geometry.batch), self.fv.weight, geometry.batch.device)
        if geometry.order is not None:
            x = x[geometry.order]
        if geometry.pool is None or geometry.region_size is None:
            y, index, similarity = self._in_segments(self.fv(x), geometry)
            y = self._last(y, proj)
        else:
            repeats = geometry.repeats
            if repeats is not None:
                repeats = repeats[0 if self.fuse is None else 1].view(-1, geometry.num_centers)
            shape = (-1, geometry.region_size, x.size(1))
            here = onto is not None and geometry.order is None
            y, index, similarity = self._in_slices(
                onto.view(shape) if here and onto is not None else None,
                x.view(shape),
                proj,
                geometry.pool,
                None,
                repeats,
                geometry.grouping,
            )
            onto = None if here else onto
        if geometry.order is not None:
            y = torch.empty_like(y).index_copy(0, geometry.order, y)
        y = y if onto is None else onto + y
        return y, _clusters(index, similarity, geometry) if return_clusters else None

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
            k = self.k
            if isinstance(pos, ClusterGeometry) and k is not None:
                k = pos.grouping.size(1)
            elif isinstance(pos, LatticeGeometry) and self.fuse is not None:
                raise ValueError("fuse = 'linear' needs points in an order: a lattice has means")
            found = (pos.num_centers, k)
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

    def _on_lattice(
        self,
        onto: Tensor | None,
        x: Tensor,
        geometry: LatticeGeometry,
        proj: tuple[Tensor, Tensor] | None,
        return_clusters: bool,
    ) -> tuple[Tensor, Clusters | None]:
        """Regions of few shapes: all of one shape lie together, image by image."""
        n = geometry.num_points
        check_features(x, None if x.dim() == 2 and x.size(0) % n == 0 else n, self.fv.weight)
        image = x.view(-1, n, x.size(1))
        under = None if onto is None else onto.view_as(image)
        parts, start = [], 0
        for part in geometry.parts:
            size = part.height * part.width
            points, residual = (
                None
                if each is None
                else each.narrow(1, start, part.num_regions * size).reshape(-1, size, x.size(1))
                for each in (image, under)
            )
            assert points is not None
            repeats = None if part.repeats is None else part.repeats[None]
            y, index, s = self._in_slices(
                residual, points, proj, part.pool[None], part.total, repeats, None
            )
            parts.append([each.view(image.size(0), -1, each.size(-1)) for each in (y, index, s)])
            start += part.num_regions * size
        y, index, s = (
            each[0] if len(each) == 1 else torch.cat(each, dim=1)
            for each in zip(*parts, strict=True)
        )
        y = y.reshape_as(x)
        if not return_clusters:
            return y, None
        region, center = geometry.centers_of(image.size(0))
        index = region[:, None] * self.num_centers + index.reshape(-1, self.heads)
        return y, Clusters(index, s.detach().reshape(-1, self.heads), region, center)

    def _in_slices(
        self,
        onto: Tensor | None,
        x: Tensor,
        proj: tuple[Tensor, Tensor] | None,
        pool: Tensor,
        count: Tensor | None,
        repeats: Tensor | None,
        grouping: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Regions of equal size [R, P, C]: each is a slice, each step a batched matrix product."""
        fv, score = self.fv, (self.alpha, self.beta)
        if self.fuse is None and proj is not None and self._lifting_pays():
            y, index, s = lifted_cluster(
                x,
                (fv.weight, fv.bias),
                proj,
                score,
                pool,
                count,
                repeats,
                self.heads,
                onto,
            )
            return y.flatten(0, 1), index.flatten(0, 1), s.flatten(0, 1)
        points = fv(x)  # [R, P, 2 * H * c]
        if self.fuse is not None and grouping is not None:
            center = self.fuse(points.flatten(0, 1)[grouping].flatten(1))
        else:
            center = torch.bmm(pool.to(points.dtype).expand(x.size(0), -1, -1), points)
            center = center if count is None else center / count.to(points.dtype)
        shape = (x.size(0), -1, 2, self.heads, self.head_channels)
        f, v = points.view(shape).permute(2, 0, 3, 1, 4).unbind(0)  # [R, H, P, c]
        c, g = center.view(shape).permute(2, 0, 3, 1, 4).unbind(0)  # [R, H, M, c]
        with torch.autocast(x.device.type, enabled=False):
            f, c = at_least_float32(f), at_least_float32(c)
            cos = torch.matmul(f, c.mT) / (norm(f)[..., None] * norm(c)[..., None, :])
            s = self.beta + self.alpha * cos  # [R, H, P, M]
            if repeats is not None:
                s = s.masked_fill(repeats[:, None, None], -torch.inf)
            s, index = s.max(dim=-1)  # [R, H, P]
            s = s.sigmoid()
        own = torch.zeros_like(cos, dtype=v.dtype).scatter(
            -1, index[..., None], s[..., None].to(v.dtype)
        )
        h = g + torch.matmul(own.mT, v)  # [R, H, M, c]
        h = h / (1 + own.sum(dim=-2)[..., None])
        y = torch.matmul(own, h).transpose(1, 2)  # [R, P, H, c]
        y = self._last(y.reshape(-1, self.heads * self.head_channels), proj)
        y = y if onto is None else onto.flatten(0, 1) + y
        index, s = (each.transpose(1, 2).reshape(-1, self.heads) for each in (index, s))
        return y, index, s

    def _last(self, y: Tensor, proj: tuple[Tensor, Tensor] | None) -> Tensor:
        """The last linear map, by its weights or as a layer."""
        return self.proj(y) if proj is None else F.linear(y, *proj)

    def _lifting_pays(self) -> bool:
        """Whether products with all heads' centres cost less than v and the last map do."""
        c, w, m = self.proj.out_features, self.proj.in_features, self.num_centers
        return self.heads * m * (w + 2 * c) <= 2 * w * c + 3 * w * m

    def _in_segments(self, fv: Tensor, geometry: ClusterGeometry) -> tuple[Tensor, Tensor, Tensor]:
        """Regions of any size: a scatter and a gather."""
        n, m, region = fv.size(0), geometry.num_centers, geometry.region
        f, v = fv.view(n, 2, self.heads, self.head_channels).unbind(1)  # [N, H, c]
        if self.fuse is not None:
            center = self.fuse(fv[geometry.grouping].flatten(1))
        else:
            weight = geometry.weight.to(fv.dtype)
            center = fv.new_zeros(len(weight), fv.size(1))
            for slot in range(weight.size(1)):  # one neighbour at a time: no [R * M, k, C]
                chosen = fv.index_select(0, geometry.grouping[:, slot])
                center = torch.addcmul(center, weight[:, slot, None], chosen)
        c, g = center.view(-1, m, 2, self.heads, self.head_channels).unbind(2)  # [R, M, H, c]
        f, c = at_least_float32(f), at_least_float32(c)
        length = norm(c)  # [R, M, H]
        # One centre at a time: no [N, M, c].
        dot = [(f * c[region, j]).sum(dim=-1) / length[region, j] for j in range(m)]
        cos = torch.stack(dot, dim=-1) / norm(f)[..., None]  # [N, H, M]
        score = self.beta + self.alpha * cos
        if geometry.repeats is not None:
            repeats = geometry.repeats[0 if self.fuse is None else 1].view(-1, m)
            score = score.masked_fill(repeats[region, None], -torch.inf)
        score, index = score.max(dim=-1)  # [N, H]
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


def check_features(
    x: Tensor, num_points: int | None, weight: Tensor, device: torch.device | None = None
) -> None:
    """Check that `x` has a row a point, and the channels, dtype and device of a layer's weight.

    Raises:
        ValueError: It has not.
    """
    if x.dim() != 2 or x.size(0) != (num_points or x.size(0)) or x.size(1) != weight.size(1):
        raise ValueError(
            f"x must have shape [{num_points or 'N'}, {weight.size(1)}] (points, channels), "
            f"found {list(x.shape)}"
        )
    device = device or weight.device
    if x.device != weight.device or device != weight.device:
        raise ValueError(
            f"x is on {x.device}, the positions on {device}, the layer on {weight.device}"
        )
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x is {x.dtype}, the layer {weight.dtype}: convert one of them")


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
