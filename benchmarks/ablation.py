"""What each part of a network's design is worth on HomeObjects: one part changed at a time.

Data, recipe and results are those of benchmarks/peers.py; each variant is a network of its own
name. As there, runs that are written already are not trained again, and several processes may share
the work. The page is written beside this program: ablation.md for point_coc_small, and
ablation_tiny.md for point_coc_tiny.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peers
import torch
from torch import Tensor, nn

from pointcluster.geometry import ClusterGeometry, LatticeGeometry
from pointcluster.models import create_model
from pointcluster.nn import ContextCluster, ContextClusterBlock

PAGES = {"point_coc_small": "ablation", "point_coc_tiny": "ablation_tiny"}
"""The networks to change, and what their pages are called."""
HERE = Path(os.path.relpath(Path(__file__).resolve().parent))


class SoftCluster(ContextCluster):
    r"""The operator with every point in all clusters of its region, by shares that add up to one.

    $$ w_{mn} = s_{mn} \operatorname{softmax}_m (4 \cos(c_m, f_n)), \quad
       h_m = \frac{g_m + \sum_n w_{mn} v_n}{1 + \sum_n w_{mn}}, \quad y_n = \sum_m w_{mn} h_m $$

    For regions of equal size, as equal clouds have.
    """

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        geometry: ClusterGeometry | LatticeGeometry,
        *,
        residual: Tensor | None = None,
        scale: Tensor | None = None,
        return_clusters: bool = False,
    ) -> Tensor:
        pool = geometry.regions.pool if isinstance(geometry, ClusterGeometry) else None
        if return_clusters or pool is None:
            raise ValueError(
                "soft clusters: equal clouds only, and there is no one cluster to tell"
            )
        pool = pool / geometry.regions.filled[..., None]
        points = self.fv(x).view(
            len(pool), -1, 2, self.heads, self.head_channels
        )  # [R, P, 2, H, c]
        f, v = points.permute(2, 0, 3, 1, 4)  # [R, H, P, c]
        center = torch.einsum("rmp,trhpc->trhmc", pool.to(f.dtype), torch.stack([f, v]))
        c, g = center.unbind(0)
        unit = nn.functional.normalize
        cos = unit(f, dim=-1, eps=1e-8) @ unit(c, dim=-1, eps=1e-8).mT  # [R, H, P, M]
        w = torch.sigmoid(self.beta + self.alpha * cos) * torch.softmax(4 * cos, dim=-1)
        h = (g + w.mT @ v) / (1 + w.sum(dim=2)[..., None])
        y = self.proj((w @ h).transpose(1, 2).reshape(len(x), -1))
        y = y if scale is None else y * scale
        return y if residual is None else residual + y


class NoCluster(ContextCluster):
    """Nothing: the block keeps its MLP alone."""

    def forward(self, x: Tensor, *_: Any, residual: Tensor | None = None, **__: Any) -> Tensor:
        return torch.zeros_like(x) if residual is None else residual


def variants(base: str) -> dict[str, Callable[[int], nn.Module]]:
    """Networks that differ from one in a part of the design, by what differs."""
    network = create_model(base)
    heads = [stage[0].cluster.heads for stage in network.stages]
    first, *ratios = (plan.ratio for plan in network.plans)

    def changed(
        kind: type[ContextCluster] | None = None, **options: Any
    ) -> Callable[[int], nn.Module]:
        """Builds the network with other options, or another operator with the same parameters."""

        def build(num_classes: int) -> nn.Module:
            model = create_model(base, num_classes=num_classes, **options)
            for module in model.modules():
                if kind is not None and isinstance(module, ContextClusterBlock):
                    module.cluster.__class__ = kind
            return model

        return build

    own = {"point_coc_small": {"no normalisation before gathering": changed(pre_norm=False)}}
    share = {0.25: "half", 0.5: "a quarter"}[first]
    return own.get(base, {}) | {
        f"{share} of the points in stage 1": changed(ratios=[0.75 - first, *ratios]),
        "each cloud one region": changed(region_size=None),
        "regions of 16 points": changed(region_size=16),
        "1 centre": changed(num_centers=1),
        "16 centres": changed(num_centers=16),
        "1 head": changed(heads=[1 for _ in heads]),
        "twice the heads": changed(heads=[2 * own for own in heads]),
        "soft clusters": changed(SoftCluster),
        "no clusters, MLPs alone": changed(NoCluster),
        "no blocks": changed(depths=[0 for _ in heads]),
        "concat reducer": changed(reducer="concat"),
        "no relative positions": changed(relative=False),
    }


def main(argv: Sequence[str] | None = None) -> int:
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--base", choices=tuple(PAGES), default="point_coc_small")
    base = first.parse_known_args(argv)[0].base
    networks = variants(base)
    peers.PEERS.update(networks)
    args = peers.parse_arguments(
        argv, models=[base, *networks], description=__doc__, out=HERE, parents=[first]
    )
    return peers.compare(
        args, PAGES[base], f"What the parts of {base} are worth", program="ablation"
    )


if __name__ == "__main__":
    sys.exit(main())
