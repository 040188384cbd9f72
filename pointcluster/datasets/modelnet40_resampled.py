"""ModelNet40 as text files of 10,000 points with normals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pointcluster.datasets.cloud_cache import cached, fingerprint

FOLDER = "modelnet40_normal_resampled"
NAMES = "modelnet40_shape_names.txt"
POINTS = 10_000


def list_resampled(folder: Path, split: str) -> tuple[list[str], list[Path], np.ndarray]:
    """Names of the classes; the files of a split; the class of each.

    Raises:
        FileNotFoundError: A list, or a file that it names, is missing.
        ValueError: A list is empty, or names a shape of no class or one shape twice.
    """
    classes = read_lines(folder / NAMES)
    listing = folder / f"modelnet40_{split}.txt"
    shapes = read_lines(listing)
    if len(set(shapes)) != len(shapes):
        raise ValueError(f"{listing} names a shape twice")
    number = {name: i for i, name in enumerate(classes)}
    files, y = [], []
    for shape in shapes:
        name = shape.rpartition("_")[0]  # night_stand_0001 is a night_stand
        if name not in number:
            raise ValueError(f"{listing} names {shape!r}, which is of no class in {NAMES}")
        files.append(folder / name / f"{shape}.txt")
        y.append(number[name])
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} is missing: {listing.name} names it")
    return classes, files, np.array(y)


def read_resampled(folder: Path, split: str, num_points: int | None) -> dict[str, Tensor]:
    """Clouds of a split, centred and scaled to the unit sphere; kept as one file in the folder.

    Args:
        folder: The folder with the lists.
        split: ``"train"`` or ``"test"``.
        num_points: Points to give of each, the first ones; all 10,000 by default.

    Shapes and units:
        ``pos [n, num_points, 3]``, ``normal [n, num_points, 3]`` float32 and ``y [n]`` int64.

    Raises:
        ValueError: A file is damaged or has another form.
    """
    _, files, y = list_resampled(folder, split)

    def make() -> dict[str, Tensor]:
        from tqdm import tqdm

        values = np.empty((len(files), POINTS, 6), dtype=np.float32)
        title = f"reading ModelNet40's text files ({split}, once)"
        for i, file in enumerate(tqdm(files, desc=title, disable=None)):
            values[i] = _read(file)
        for cloud in values[..., :3]:  # in place: all clouds take gigabytes
            cloud -= cloud.mean(axis=0, dtype=np.float64)
            cloud /= max(float(np.linalg.norm(cloud, axis=1).max()), 1e-12)
        pos, normal = (torch.from_numpy(values[..., part].copy()) for part in np.s_[:3, 3:])
        return {"pos": pos, "normal": normal, "y": torch.from_numpy(y)}

    key = fingerprint([folder / NAMES, *files], "resampled", 1, y.tolist())
    return cached(folder / f"{split}.safetensors", key, make, first=num_points)


def read_lines(path: Path) -> list[str]:
    """The lines of a list that belongs to the data set, without empty ones.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is part of ModelNet40's files")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


def _read(path: Path) -> np.ndarray:
    try:
        if not path.read_bytes().strip():
            raise ValueError("it is empty")
        values = np.loadtxt(path, dtype=np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or is no list of numbers: {error}") from error
    if values.shape != (POINTS, 6):
        raise ValueError(
            f"{path} holds {len(values):,} lines of {values.shape[1]} numbers, expected "
            f"{POINTS:,} of 6 (x, y, z and a normal)"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has NaN or infinite numbers")
    return values
