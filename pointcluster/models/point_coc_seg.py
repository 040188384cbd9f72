"""Networks of context clusters that tell the class of every point of a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch_geometric.data import Data

from pointcluster.geometry import Hierarchy
from pointcluster.geometry.check import check_positive
from pointcluster.models.base import check_entries
from pointcluster.models.clouds import cloud_of
from pointcluster.models.point_coc import SIZES as ENCODERS
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.results import Features
from pointcluster.nn import CarryBack, ContextClusterBlock, PointReducer


class Size(NamedTuple):
    """A decoder; the terms are :class:`PointCoCSeg`'s."""

    decoder: tuple[int, ...]
    decoder_depths: tuple[int, ...]


DECODERS = {
    # channels of the decoder at all points and at the stages', its blocks there
    "point_coc_tiny": Size((48, 48, 96), (0, 1)),
    "point_coc_small": Size((48, 48, 96, 128), (1, 1, 1)),
}
"""The decoder behind every encoder."""
SIZES = {
    f"{name}_seg": ENCODERS[name]._asdict() | decoder._asdict()
    for name, decoder in DECODERS.items()
}
"""The networks by name."""


class PointCoCSeg(PointCoC):
    r"""Classes of points: the stages of :class:`PointCoC`, and the way back to all points.

    The features of a stage's anchors are carried back to the stage before, by inverse distance or
    by assignment (:class:`~pointcluster.nn.CarryBack`), are added to what was there, and go through
    context cluster blocks on the regions that the stage has already; last, they are carried to all
    points. All of the geometry is the hierarchy's, so that a loader's workers can prepare it.

    Args:
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the features `x` that come with the positions.
        decoder: Channels of the decoder at all points, then at every stage but the last.
        decoder_depths: Blocks of the decoder at every stage but the last.
        decoder_mlp_ratio: Hidden channels of the decoder's blocks' MLP as a multiple.
        carry: How features are carried back, `"interpolate"` or `"assign"`.
        carry_k: Anchors that a point is carried back from.
        place: Whether positions relative to the cloud's mean are features of the points, too. In a
            block cut from a scene, where its middle happens to lie says nothing.
        features_only: Answer with the decoder's features and not with class scores.
        head_hidden: Of the encoder's size; there is no such layer here.
        options: As for :class:`PointCoC`.

    Shapes:
        - **data:** `pos` $(N, D)$, `batch` $(N)$, and `x` $(N, F)$ where `in_channels` is F
        - **output:** $(N, \text{classes})$; with `features_only` a list of
          :class:`~pointcluster.models.results.Features`: of all points, then of the stages

    Raises:
        ValueError: The decoder's lists do not fit the encoder's.
    """

    def __init__(
        self,
        num_classes: int = 50,
        in_channels: int = 0,
        *,
        decoder: Sequence[int],
        decoder_depths: Sequence[int],
        decoder_mlp_ratio: float = 2.0,
        carry: str = "interpolate",
        carry_k: int = 3,
        place: bool = True,
        features_only: bool = False,
        heads: Sequence[int],
        channels: Sequence[int],
        encode: Sequence[int],
        num_centers: int = 4,
        center_k: int = 8,
        region_size: int = 32,
        dropout: float = 0.3,
        layer_scale: float | None = None,
        head_hidden: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(
            num_classes,
            in_channels,
            heads=heads,
            channels=channels,
            encode=encode,
            num_centers=num_centers,
            center_k=center_k,
            region_size=region_size,
            layer_scale=layer_scale,
            features_only=True,  # without what classifies whole clouds
            **options,
        )
        if (len(decoder), len(decoder_depths)) != (len(channels), len(channels) - 1):
            raise ValueError(
                f"a network of {len(channels)} stages needs {len(channels)} entries of decoder and "
                f"{len(channels) - 1} of decoder_depths, found {len(decoder)} and "
                f"{len(decoder_depths)}"
            )
        check_entries(1, decoder=decoder)
        check_entries(0, decoder_depths=decoder_depths)
        check_positive("carry_k", carry_k)
        self.plans = [plan._replace(carry_k=carry_k) for plan in self.plans]
        self.features_only, self.place = features_only, place
        self.num_features = self.head_hidden_size = decoder[0]
        if not place:
            first: Any = self.reducers[0]
            self.reducers[0] = PointReducer(
                in_channels,
                channels[0],
                k=first.k,
                num=first.num,
                dim=first.dim,
                mode=first.mode,
                hidden=encode[0],
            )
        skips = [in_channels + self.dim * place, *channels[:-1]]
        self.carries: Any = nn.ModuleList()
        self.decoder: Any = nn.ModuleList()
        deeper = [*decoder[1:], channels[-1]]
        for level, (skip, wide) in enumerate(zip(skips, decoder, strict=True)):
            self.carries.append(CarryBack(deeper[level], skip, wide, mode=carry))
            depth = decoder_depths[level - 1] if level else 0
            head = heads[level - 1] if level else 1
            self.decoder.append(
                nn.ModuleList(
                    ContextClusterBlock(
                        wide,
                        heads=head,
                        head_channels=wide // head,
                        num_centers=num_centers,
                        k=center_k,
                        region_size=region_size,
                        mlp_ratio=decoder_mlp_ratio,
                        layer_scale=layer_scale,
                    )
                    for _ in range(depth)
                )
            )
        if not features_only:
            self.neck = nn.Sequential(
                nn.Linear(self.num_features, self.num_features), nn.GELU(), nn.Dropout(dropout)
            )
            self.head = self.new_head(num_classes)

    def forward(self, data: Data, hierarchy: Hierarchy | None = None) -> Any:
        """Class scores of every point; `hierarchy` reuses geometry worked out before."""
        if self.features_only:
            return self.forward_pyramid(data, hierarchy)
        return self.forward_head(self.forward_features(data, hierarchy))

    def forward_features(self, data: Data, hierarchy: Hierarchy | None = None) -> Features:
        """All points with the decoder's features."""
        return self.forward_pyramid(data, hierarchy)[0]

    def forward_pyramid(self, data: Data, hierarchy: Hierarchy | None = None) -> list[Features]:
        """The decoder's features of all points, then those of the stages, the last one's last."""
        hierarchy = self.checked_hierarchy(data, hierarchy)
        before = [self.points(data, hierarchy.batch_size), *self.forward_stages(data, hierarchy)]
        out = [before.pop()]
        for level in reversed(range(len(before))):
            x = self.carries[level](out[-1].x, hierarchy.carries[level], before[level].x)
            if level:
                clusters = hierarchy.stages[level - 1].clusters
                for block in self.decoder[level]:
                    x = self.call(block, x, clusters)
            out.append(before[level]._replace(x=x))
        return out[::-1]

    def pool(self, features: Features) -> Tensor:
        """Nothing is pooled: a row is a point. [N, C]"""
        return features.x

    def points(self, data: Data, batch_size: int) -> Any:
        """The clouds as the first stage takes them, with their places or without."""
        if self.place:
            return super().points(data, batch_size)
        x = data.x.to(next(self.parameters()).dtype) if self.in_channels else None
        return Features(x, data.pos, cloud_of(data), batch_size)  # type: ignore[arg-type]
