"""Autzen: the airborne scan that ships with this project."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.datasets.lidar_hd import FEATURES
from pointcluster.datasets.scenes import IGNORED, SceneDataset
from pointcluster.files import bundled_folder, check_bundled
from pointcluster.geometry import knn

FILE = "autzen.laz"
SHA256 = "75867b3e75cfc3c2e96da9f753c04c9fbaa6a59468dea13e2859f3109b38bd66"
CLASSES = {"ground": (2,), "other": (1,)}
"""The classes, with their codes in the file."""
CLEAR = 0.5
"""So far above the classified ground an unclassified point is surely something else, in metres."""


class Autzen(SceneDataset):
    r"""Ground and what stands on it, beside a stadium in Oregon: 110,000 points in two halves.

    One half of the tile is to train on, the other to test on: separating ground is what every use
    of airborne scans begins with. The file's ground is a thinned one: of the points that it leaves
    unclassified, two thirds lie on the ground, too. So those within half a metre of the classified
    ground have no class here, -1. ``datasets/autzen/README.md`` says where the file is from.

    Args:
        split: ``"train"``, the western half, or ``"test"``, the eastern one.
        root: A folder with ``autzen.laz``; by default the one that came with the package.
        features: What ``x`` holds, of :data:`~pointcluster.datasets.scenes.CHANNELS`.
        transform: Applied to the item when it is asked for.

    Shapes and units:
        The one item is ``Data(pos [N, 3] float32, x [N, F] float32, y [N] int64, origin, name)``,
        as :func:`~pointcluster.datasets.scenes.read_scene` gives it: the file is in feet, positions
        are in metres.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is not the bundled one, or ``split`` is unknown.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        root: str | os.PathLike[str] | None = None,
        features: Sequence[str] = FEATURES,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        path = (bundled_folder("autzen", FILE) if root is None else Path(root)) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: root must be a folder with {FILE}")
        if root is None:
            check_bundled(path, path.read_bytes(), SHA256)
        super().__init__([path], CLASSES, features=features, transform=transform)
        self.split = split

    def get(self, idx: int) -> Data:
        whole = super().get(idx)
        x = whole.pos[:, 0]
        east = x > x.median()
        half = east if self.split == "test" else ~east
        out = Data(origin=whole.origin, name=f"{whole.name}-{self.split}")
        for key, value in (("pos", whole.pos), ("x", whole.get("x")), ("y", _clear(whole))):
            if value is not None:
                out[key] = value[half]
        return out


def _clear(scene: Data) -> Tensor:
    """The classes, without what the file leaves open."""
    ground = scene.pos[scene.y == 0]
    near = knn(ground[:, :2].contiguous(), scene.pos[:, :2].contiguous(), 3)
    above = scene.pos[:, 2] - ground[:, 2][near].mean(dim=1)
    return torch.where((scene.y == 1) & (above < CLEAR), IGNORED, scene.y)
