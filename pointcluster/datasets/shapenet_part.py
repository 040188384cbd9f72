"""ShapeNetPart: parts of 3D objects, in PyTorch Geometric's form."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ShapeNet
from torch_geometric.transforms import BaseTransform, Compose


class ShapeNetPart(ShapeNet):
    """Objects of 16 categories, each point with one of its category's 2 to 6 parts, 50 in all.

    It is PyG's :class:`~torch_geometric.datasets.ShapeNet`, whose items get as features what
    networks on it are given: the normals, and which category it is, as the papers do. (Yi et al.,
    "A Scalable Active Framework for Region Annotation in 3D Shape Collections", SIGGRAPH Asia
    2016.) :class:`~pointcluster.training.PartIoU` counts the measures of the papers.

    Args:
        root: Where the files are, in ``raw``, or are downloaded to, as PyG does it.
        split: ``"train"``, ``"val"``, ``"trainval"`` or ``"test"``.
        categories: Some of the categories; all, if not said.
        normals: Whether normals are features.
        transform: Applied to every item when it is read, after the features are put together.

    Attributes:
        classes: Names of the parts, such as ``"Airplane 0"``.
        in_channels: Channels of ``x``.

    Shapes and units:
        Items are ``Data(pos [P, 3] float32, x [P, 3 + 16] float32, y [P] int64, category [1])``,
        with parts from 0 to 49 and the category's place among all 16.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "trainval",
        *,
        categories: str | Sequence[str] | None = None,
        normals: bool = True,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        names = [categories] if isinstance(categories, str) else categories
        if unknown := sorted(set(names or ()) - set(self.category_ids)):
            raise ValueError(f"categories name {unknown}, expected some of {[*self.category_ids]}")
        place = [list(self.category_ids).index(name) for name in names or self.category_ids]
        features = _Features(place, normals, len(self.category_ids))
        whole = features if transform is None else Compose([features, transform])
        super().__init__(
            str(root), None if names is None else list(names), True, split=split, transform=whole
        )
        self.in_channels = 3 * normals + len(self.category_ids)
        self.classes = [
            f"{category} {number}"
            for category, parts in self.seg_classes.items()
            for number in range(len(parts))
        ]


class _Features(BaseTransform):
    """Normals and the category, one-hot, as the features of every point."""

    def __init__(self, place: Sequence[int], normals: bool, count: int) -> None:
        self.place, self.normals, self.count = list(place), normals, count

    def forward(self, data: Data) -> Data:
        category = self.place[int(data.category)]
        hot = torch.zeros(len(data.pos), self.count)
        hot[:, category] = 1
        data.x = torch.cat([data.x, hot], dim=1) if self.normals else hot
        data.category = torch.tensor([category])
        return data
