"""The residual block around a context cluster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointcluster.geometry import ClusterGeometry, LatticeGeometry
from pointcluster.nn import fused
from pointcluster.nn.context_cluster import Clusters, ContextCluster, check_features
from pointcluster.nn.drop_path import DropPath
from pointcluster.nn.norm import CloudNorm
from pointcluster.nn.plain import is_plain


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
        k: int | None = 9,
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
        if isinstance(geometry, LatticeGeometry):
            n = geometry.num_points
            check_features(x, None if x.size(0) % n == 0 else n, self.cluster.fv.weight)
            clouds = (None, x.size(0) // n, n)
        else:
            # Clouds follow one another in every storage order: `batch` holds in the caller's, too.
            batch = geometry.batch
            check_features(x, len(batch), self.cluster.fv.weight, batch.device)
            clouds = (batch, geometry.batch_size, geometry.cloud_size)
        y = self.norm1(x, *clouds)
        keep = self.drop_path.draw(clouds[1], x)
        if keep is None:
            x, found = self.cluster.add_to(
                x, y, geometry, scale=self.scale1, return_clusters=return_clusters
            )
        else:
            y, found = self.cluster.add_to(None, y, geometry, return_clusters=return_clusters)
            x = _add(x, y, self.scale1, keep, clouds[0])
        y = self.norm2(x, *clouds)
        keep = self.drop_path.draw(clouds[1], x)
        if keep is None and self._lean(x):
            x = self._lean_mlp(y, x)
        else:
            y = self._lean_mlp(y) if self._lean(x) else self.mlp(y)
            x = _add(x, y, self.scale2, keep, clouds[0])
        return x if found is None else (x, found)

    def _lean(self, x: Tensor) -> bool:
        """Whether the MLP can do without the memory for what its activation gives."""
        dropout = self.training and self.mlp[2].p > 0
        compiled = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        return is_plain(self.mlp[0], self.mlp[3]) and not (dropout or compiled)

    def _lean_mlp(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The MLP, or the sum of other features and the scaled MLP, without a pass for it."""
        first, last = self.mlp[0], self.mlp[3]
        weight, bias = last.weight, last.bias
        if onto is not None and self.scale2 is not None:
            weight, bias = weight * self.scale2[:, None], bias * self.scale2
        return _LeanMLP.apply(x, first.weight, first.bias, weight, bias, onto)


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


class _LeanMLP(torch.autograd.Function):
    r"""$r + W_2 \operatorname{gelu}(W_1 x + b_1) + b_2$, some rows at a time; $r$ may be left out.

    The hidden features are most of what training a block would have to keep, and on a CPU writing
    them to memory and back takes longer than working them out. So they are never there for all
    rows, and worked out again going back.
    """

    ELEMENTS = 1 << 20
    """Hidden features at a time, on a CPU: they stay in its cache."""

    @classmethod
    def rows(cls, x: Tensor, hidden: int) -> int:
        """Rows at a time, so that all but the last have equally many."""
        if x.device.type != "cpu":
            return max(1, len(x))
        parts = -(-len(x) * hidden // cls.ELEMENTS)
        return max(1, -(-len(x) // max(1, parts)))

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        onto: Tensor | None = None,
    ) -> Tensor:
        ctx.save_for_backward(x, w1, b1, w2)
        if fused.serves(x, w1, b1, w2, b2, *([] if onto is None else [onto])):
            return fused.mlp(x, w1, b1, w2, b2, onto)
        step = _LeanMLP.rows(x, len(w1))
        y = x.new_empty(len(x), len(w2))
        hidden = x.new_empty(step, len(w1))
        for start in range(0, len(x), step):
            rows = x[start : start + step]
            h = torch.addmm(b1, rows, w1.t(), out=hidden[: len(rows)])
            torch.ops.aten.gelu_(h)
            if onto is None:
                torch.addmm(b2, h, w2.t(), out=y[start : start + step])
            else:
                torch.add(onto[start : start + step], b2, out=y[start : start + step])
                y[start : start + step].addmm_(h, w2.t())
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2 = ctx.saved_tensors
        onto = grad if ctx.needs_input_grad[5] else None
        if torch.is_grad_enabled():  # to be differentiated again: by what autograd knows
            h = torch.addmm(b1, x, w1.t())
            d = torch.ops.aten.gelu_backward(grad @ w2, h)
            to_w2 = grad.t() @ torch.nn.functional.gelu(h)
            return d @ w1, d.t() @ x, d.sum(dim=0), to_w2, grad.sum(dim=0), onto
        grad = grad.contiguous()
        if fused.serves(x, w1, b1, w2, grad):
            return *fused.mlp_backward(x, w1, b1, w2, grad), grad.sum(dim=0), onto
        step = _LeanMLP.rows(x, len(w1))
        h, a, d = x.new_empty(3, step, len(w1)).unbind()
        to_x, to_w1, to_b1 = torch.empty_like(x), torch.zeros_like(w1), torch.zeros_like(b1)
        to_w2 = torch.zeros_like(w2)
        for start in range(0, len(x), step):
            rows, slope = x[start : start + step], grad[start : start + step]
            n = len(rows)
            torch.addmm(b1, rows, w1.t(), out=h[:n])
            torch.ops.aten.gelu.out(h[:n], out=a[:n])
            to_w2.addmm_(slope.t(), a[:n])
            torch.mm(slope, w2, out=d[:n])
            torch.ops.aten.gelu_backward.grad_input(d[:n], h[:n], grad_input=a[:n])
            to_w1.addmm_(a[:n].t(), rows)
            to_b1 += a[:n].sum(dim=0)
            torch.mm(a[:n], w1, out=to_x[start : start + step])
        return to_x, to_w1, to_b1, to_w2, grad.sum(dim=0), onto
