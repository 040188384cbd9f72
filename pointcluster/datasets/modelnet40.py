"""ModelNet40 as the point-cloud literature uses it: 12,308 clouds of 2,048 points."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

FOLDER = "modelnet40_ply_hdf5_2048"

# In the order in which they are tried. None could be reached from where this was written.
MIRRORS = (
    "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
    "https://github.com/ma-xu/pointMLP-pytorch/releases/download/Modenet40_dataset/"
    "modelnet40_ply_hdf5_2048.zip",
    "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip",
)

MANUAL_STEPS = f"""To get ModelNet40 by hand:
  1. fetch {FOLDER}.zip (about 435 MB) with a browser, for example from
     {MIRRORS[1]}
  2. unpack it: the folder {FOLDER} holds train_files.txt and seven .h5 files
  3. give that folder, or the one above it, as root (--root)"""


class ModelNet40(InMemoryDataset):
    r"""The 40-class benchmark of `"3D ShapeNets" <https://arxiv.org/abs/1406.5670>`_ in the HDF5
    form of `"PointNet" <https://arxiv.org/abs/1612.00593>`_.

    Args:
        root: The folder ``modelnet40_ply_hdf5_2048``, or the one it lies in.
        split: ``"train"`` (9,840 clouds) or ``"test"`` (2,468).
        download: Fetch the archive (about 435 MB) into ``root`` where it is not there yet.
        transform: Applied to every item when it is read.
        sizes: Clouds that the two splits must have; ``None`` takes them as they are.

    Shapes and units:
        Items are ``Data(pos [2048, 3] float32, y [1] int64)``. Clouds lie in the unit sphere, the
        second axis points up.

    Raises:
        FileNotFoundError: The folder, or a file that its lists name, is missing.
        ValueError: A file is damaged or is not what the benchmark has; names file, found, expected.
        OSError: The download failed; the message says what to do by hand.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        download: bool = False,
        transform: Callable[[Data], Data] | None = None,
        sizes: tuple[int, int] | None = (9840, 2468),
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        super().__init__(None, transform)
        folder = find_modelnet40(root)
        if folder is None and download:
            folder = _fetch(Path(root))
        if folder is None:
            raise FileNotFoundError(
                f"no ModelNet40 in {root}: expected train_files.txt there or in {FOLDER}/ "
                "(datasets/modelnet40/README.md tells how to get it)"
            )
        self.split = split
        self.classes = _lines(folder / "shape_names.txt")
        if len(set(self.classes)) != 40:
            raise ValueError(
                f"{folder / 'shape_names.txt'} names {len(set(self.classes))} classes, expected 40"
            )
        # The lists hold paths of the machine they were written on: only the names count.
        files = [folder / Path(line).name for line in _lines(folder / f"{split}_files.txt")]
        parts = [_read(file, len(self.classes)) for file in files]
        pos, y = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        expected = None if sizes is None else sizes[split == "test"]
        if expected is not None and len(y) != expected:
            raise ValueError(f"{folder}: the {split} split has {len(y):,} clouds, not {expected:,}")
        ends = torch.arange(len(y) + 1)
        self._data = Data(pos=pos.flatten(0, 1), y=y)
        self.slices = {"pos": ends * pos.size(1), "y": ends}

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"ModelNet40({len(self)}, split={self.split!r})"


def find_modelnet40(root: str | os.PathLike[str]) -> Path | None:
    """The folder with the benchmark's lists: ``root``, the one inside it, or ``None``."""
    for folder in (Path(root), Path(root) / FOLDER):
        if (folder / "train_files.txt").is_file():
            return folder
    return None


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is part of ModelNet40's HDF5 form")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


def _read(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a list in its folder names it")
    try:
        with h5py.File(path, "r") as file:
            missing = {"data", "label"} - set(file)
            if missing:
                raise ValueError(
                    f"{path} holds {sorted(file)}, expected the arrays 'data' and 'label'"
                )
            pos, y = file["data"][()], file["label"][()]
    except OSError as error:  # what h5py raises for a file that ends early or is no HDF5
        raise ValueError(f"{path} is truncated or is no HDF5 file: {error}") from error
    if pos.dtype != np.float32 or pos.ndim != 3 or pos.shape[1:] != (2048, 3):
        raise ValueError(
            f"{path}: 'data' is {pos.dtype} {list(pos.shape)}, expected float32 [n, 2048, 3]"
        )
    if y.size != len(pos) or y.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: 'label' is {y.dtype} {list(y.shape)}, expected integers [{len(pos)}, 1]"
        )
    y = y.reshape(-1).astype(np.int64)
    if not np.isfinite(pos).all():
        bad = int(np.argmin(np.isfinite(pos).all(axis=(1, 2))))
        raise ValueError(f"{path}: cloud {bad} has NaN or infinite positions")
    if len(y) and not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(
            f"{path}: class indices go from {y.min()} to {y.max()}, expected 0 to {num_classes - 1}"
        )
    return pos, y


def _fetch(root: Path) -> Path:
    from pointcluster.datasets.fetch import download, unpack

    archive = root / f"{FOLDER}.zip"
    try:
        if not archive.exists():
            download(MIRRORS, archive)
        unpack(archive, root)
    except OSError as error:
        raise OSError(f"ModelNet40 could not be fetched: {error}\n{MANUAL_STEPS}") from error
    folder = find_modelnet40(root)
    if folder is None:
        raise ValueError(f"{archive} holds no train_files.txt: it is not ModelNet40's HDF5 form")
    return folder
