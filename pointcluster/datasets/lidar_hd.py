"""LiDAR HD: airborne scans of France, with a class at every point."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch_geometric.data import Data

from pointcluster.datasets.scenes import SceneDataset

CLASSES = {
    "ground": (2,),
    "low vegetation": (3,),
    "medium vegetation": (4,),
    "high vegetation": (5,),
    "building": (6,),
}
"""The classes, with their codes in the files; all other codes are ignored."""
FEATURES = ("intensity", "return_number", "number_of_returns", "height")
SHA256 = {
    "2021_0382_6565": "3590376079a23318c5f85ad029cbcefe69f579502f965c19dd6af75b4ac70b19",
    "2023_0299_6802": "386879e07021aa8a46be3cc888a85ac615bc2f6d4a6640e788e67a55ea97be05",
    "2023_0300_6802": "e713de7f979560557e53bc25e6b1f005d366096f062e6132a43a1509dc8f3880",
    "2023_0292_6833": "99926fecd263944b8402815934dd9c1ffd0a1fc4fc258915a8c5bff21aeee207",
}
"""SHA-256 of the tiles."""
SPLITS = {
    "train": ("2021_0382_6565", "2023_0299_6802", "2023_0300_6802"),
    "test": ("2023_0292_6833",),
}


class LidarHD(SceneDataset):
    r"""Four thinned tiles of IGN's LiDAR HD, of about 1 km²: three to train on, one to test on.

    The tile to test on lies 32 km from the nearest other one. Classes are the product's, made by
    programs and corrected in part.
    ``datasets/lidar_hd/README.md`` says where anyone finds the files, and under what licence.

    Args:
        root: The folder with the four ``.laz`` files.
        split: ``"train"`` or ``"test"``.
        features: What ``x`` holds, of :data:`~pointcluster.datasets.scenes.CHANNELS`.
        transform: Applied to every item when it is asked for.
        check: Whether files must be those that results were measured on, by their SHA-256.

    Shapes and units:
        Items are ``Data(pos [N, 3] float32, x [N, F] float32, y [N] int64, origin, name)``, as
        :func:`~pointcluster.datasets.scenes.read_scene` gives them: metres from ``origin`` in
        Lambert-93; ``y`` is 0 to 4 as :data:`CLASSES` lists them, or -1.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: ``split`` is unknown, or a file is another one.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        features: Sequence[str] = FEATURES,
        transform: Callable[[Data], Data] | None = None,
        check: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        files = [Path(root).expanduser() / f"{name}.laz" for name in SPLITS[split]]
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing: root must be a folder with {', '.join(sorted(SHA256))}, "
                    "as .laz files; datasets/lidar_hd/README.md says where they are"
                )
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if check else None
            if digest not in (None, SHA256[path.stem]):
                raise ValueError(
                    f"{path} is another file than results were measured on: its SHA-256 is "
                    f"{digest}, expected {SHA256[path.stem]}. check=False takes it as it is"
                )
        super().__init__(files, CLASSES, features=features, transform=transform)
        self.split = split
