"""One way from a file to a cloud, whatever kind of scan or mesh the file holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pointcluster.datasets.readers.columns import column_names
from pointcluster.datasets.readers.las import read_las
from pointcluster.datasets.readers.mesh import READERS, read_mesh
from pointcluster.datasets.readers.npy import read_npy
from pointcluster.datasets.readers.pcd import read_pcd
from pointcluster.datasets.readers.text import read_text

MESHES = tuple(READERS)
TEXTS = (".xyz", ".xyzn", ".xyzrgb", ".pts", ".txt", ".csv")
TABLES = (".npy", *TEXTS)
"""Tables, whose columns may have to be named."""
SUFFIXES = (*MESHES, ".pcd", ".las", ".laz", *TABLES)


def read_points(
    path: str | os.PathLike[str],
    *,
    mesh_points: int = 2048,
    seed: int | Sequence[int] = 0,
    drop_invalid: bool = False,
    columns: str | None = None,
    label: str | None = None,
) -> Data:
    r"""Read a scan as it is, or a mesh sampled evenly by area.

    - ``.ply .obj .off .stl .glb``: with faces a mesh, whose points get the normals of their faces,
      and the colours of vertices or, where they have none, of faces (textures are not read);
      without faces the vertices.
    - ``.pcd``: text, binary or compressed; points whose packed colour is NaN are black.
    - ``.las .laz``: scaled and moved as the file says.
    - ``.npy`` and text, ``.xyz .xyzn .xyzrgb .pts .txt .csv``: a row a point, of x y z, perhaps
      an intensity (left out), a normal (of length 1), red green blue (to 255 or 1) and a label (a
      whole number), told apart by what they hold. A first line, the fields of a structured array,
      or ``columns`` may name them.

    Labels are the numbers of a column ``label``, ``class``, ``classification`` or
    ``scalar_Classification``; of ``.las`` and ``.laz`` the classification, unless it is 0
    everywhere. ``label`` names another column, and makes it an error where there is none.

    Positions are read in float64. A scan far from the origin, as one in coordinates of the earth,
    would lose its detail in float32: the median is subtracted first where rounding would exceed a
    millionth of the extent, of which stray points are no part, and always from ``.las`` and
    ``.laz``.

    Args:
        path: The file; its suffix, in upper or lower case, tells what it is.
        mesh_points: Points that are drawn from the surface of a mesh.
        seed: What they are drawn by.
        drop_invalid: Leave out points with a NaN or infinite position, as depth cameras give them,
            instead of refusing the file.
        columns: What the columns of a table are, such as ``"x y z nx ny nz label"``; ``-`` is
            one to leave out.
        label: The column, field, property (of vertices or faces) or dimension that holds a label a
            point, in upper or lower case, such as ``"sem_class"``.

    Shapes and units:
        ``Data(pos [P, 3] float32, origin)`` and, where the file has them, ``normal [P, 3] float32``
        of length 1 (or 0 where the file says 0), ``color [P, 3] float32`` from 0 to 1 and
        ``label [P] int64``. Positions in the file are ``pos + origin``; ``origin`` is a tuple of
        three floats, which no device and no batch rounds. They are in the file's own frame: the
        ``VIEWPOINT`` of a ``.pcd`` file, from where it was seen, moves nothing.

    Raises:
        ImportError: The package that reads this format is not installed.
        OSError: The file cannot be opened or read, as the system says.
        ValueError: The suffix is unknown, the file is empty, damaged or ends early, holds no
            points, a mesh without an area, or NaN or infinite values, or has no labels of the name
            that was asked for. The message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if mesh_points < 1:
        raise ValueError(f"mesh_points is {mesh_points}, expected at least 1")
    if min(seed if isinstance(seed, Sequence) else (seed,), default=0) < 0:
        raise ValueError(f"seed is {seed}, expected at least 0")
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is of an unknown kind, expected one of {' '.join(SUFFIXES)}")
    if columns is not None:
        column_names(columns)
        if suffix not in TABLES:
            raise ValueError(f"{path} says itself what it holds: columns= is for tables")
    if path.stat().st_size == 0 and path.is_file():
        raise ValueError(f"{path} is empty")
    if suffix in MESHES:
        arrays = read_mesh(path, mesh_points, seed, label)
    elif suffix == ".pcd":
        arrays = read_pcd(path, label)
    elif suffix == ".npy":
        arrays = read_npy(path, columns, label)
    elif suffix in TEXTS:
        arrays = read_text(path, columns, label)
    else:
        arrays = read_las(path, label)
    finite = np.isfinite(arrays["pos"]).all(axis=1)
    if not finite.all():
        if not drop_invalid:
            bad = int(np.argmin(finite))
            raise ValueError(
                f"{path}: {np.count_nonzero(~finite):,} of {len(finite):,} points have a NaN or "
                f"infinite position, first point {bad}: {arrays['pos'][bad].tolist()}. "
                "drop_invalid=True leaves them out"
            )
        arrays = {key: array[finite] for key, array in arrays.items()}
    if not len(arrays["pos"]):
        raise ValueError(f"{path} holds no points")
    pos, origin = _near_origin(arrays.pop("pos"), always=suffix in (".las", ".laz"))
    if not np.isfinite(pos).all():
        raise ValueError(f"{path}: its positions reach beyond float32")
    data = Data(pos=torch.from_numpy(pos), origin=origin)
    for key, array in arrays.items():
        if key == "label":
            data.label = torch.from_numpy(array.astype(np.int64))
        else:
            data[key] = torch.from_numpy(_checked(path, key, array).astype(np.float32))
    return data


def find_scans(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files among paths, and those of points in the folders among them and below, sorted.

    Names that begin with a dot are passed over in folders.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A folder has no files of points.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not there")
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.name.lower().endswith(SUFFIXES)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()
        ]
        if not inside:
            raise ValueError(f"{path} has no scans: expected files such as {' '.join(SUFFIXES)}")
        found += inside
    return found


def _checked(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Normals of length 1, where they are not 0, or colours from 0 to 1."""
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: a {key} is NaN or infinite")
    if key == "normal":
        length = np.linalg.norm(array, axis=1, keepdims=True)
        return array / np.where(length > 0, length, 1)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{path}: colours go from {array.min():g} to {array.max():g}, expected 0 to 1"
        )
    return array


def _near_origin(pos: np.ndarray, always: bool) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Positions in float32, and what was subtracted before."""
    # Not the middle of the box: stray points would cost all others their detail.
    middle = np.quantile(pos, 0.5, axis=0, method="nearest")
    origin = np.zeros(3)
    with np.errstate(over="ignore"):
        distance = np.quantile(np.abs(pos - middle), 0.5, axis=0, method="higher")
        extent = min(4 * distance.max(), np.ptp(pos, axis=0).max())
        if always or 2.0**-24 * np.abs(middle).max() > 1e-6 * extent:
            origin = middle
        near = np.ascontiguousarray((pos - origin).astype(np.float32))
    return near, (float(origin[0]), float(origin[1]), float(origin[2]))
