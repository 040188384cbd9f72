"""ModelNet40 as meshes, from which points are drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import SamplePoints

from pointcluster.datasets.cloud_cache import cached, fingerprint
from pointcluster.datasets.readers.off import read_off
from pointcluster.datasets.readers.polygons import triangulate

FOLDER = "ModelNet40"


def list_meshes(folder: Path, split: str) -> tuple[list[str], list[Path], np.ndarray]:
    """Names of the classes, which are the folders; the meshes of a split; the class of each.

    Raises:
        FileNotFoundError: There is none.
    """
    classes = sorted(path.name for path in folder.iterdir() if (path / "train").is_dir())
    files, y = [], []
    for number, name in enumerate(classes):
        meshes = sorted((folder / name / split).glob("*.off"))
        files += meshes
        y += [number] * len(meshes)
    if not files:
        raise FileNotFoundError(f"no mesh in {folder}: expected CLASS/{split}/*.off there")
    return classes, files, np.array(y)


def sample_meshes(folder: Path, split: str, num_points: int, seed: int) -> dict[str, Tensor]:
    """Clouds drawn evenly from the meshes of a split; kept as one file in the folder.

    They are centred, scaled to the unit sphere, and turned so that the second axis points up, as in
    the benchmark's other forms: in the meshes it is the third. What is drawn from a mesh depends on
    the seed and its name alone.

    Args:
        folder: The folder of the classes.
        split: ``"train"`` or ``"test"``.
        num_points: Points of each.
        seed: Of the drawing.

    Shapes and units:
        ``pos [n, num_points, 3]``, ``normal [n, num_points, 3]`` float32 and ``y [n]`` int64.

    Raises:
        ValueError: A mesh is damaged or has no surface.
    """
    _, files, y = list_meshes(folder, split)

    def make() -> dict[str, Tensor]:
        from tqdm import tqdm

        pos, normal = (torch.empty(len(files), num_points, 3) for _ in range(2))
        title = f"sampling ModelNet40's meshes ({split}, once)"
        for i, file in enumerate(tqdm(files, desc=title, disable=None)):
            pos[i], normal[i] = _sample(file, num_points, seed)
        return {"pos": pos, "normal": normal, "y": torch.from_numpy(y)}

    key = fingerprint(files, "meshes", 2, num_points, seed, y.tolist())
    return cached(folder / f"{split}_{num_points}_{seed}.safetensors", key, make)


def read_mesh(path: Path) -> Data:
    """Vertices and triangles of an OFF file: ``Data(pos [v, 3], face [3, f])``.

    Polygons of more corners are cut into triangles.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged, ends early, has no triangles or is no OFF file.
    """
    data = path.read_bytes()
    try:
        mesh = read_off(data)
        pos, polygons = mesh["pos"], mesh.get("polygons", [])
        face, _ = triangulate(pos, polygons)
        if not len(face):
            raise ValueError("it has no triangles")
    except ValueError as error:
        raise ValueError(f"{path} is damaged or is no mesh in OFF form: {error}") from error
    with np.errstate(over="ignore"):
        pos = pos.astype(np.float32)
    return Data(pos=torch.from_numpy(pos), face=torch.from_numpy(face.T.copy()))


def _sample(path: Path, num_points: int, seed: int) -> tuple[Tensor, Tensor]:
    mesh = read_mesh(path)
    corners = mesh.pos.double()[mesh.face]
    area = (corners[1] - corners[0]).cross(corners[2] - corners[0], dim=1).norm(dim=1).sum()
    if not (torch.isfinite(mesh.pos).all() and area > 0):
        raise ValueError(f"{path}: its surface is empty, or a vertex is NaN or infinite")
    words = f"{seed}:{path.parent.parent.name}/{path.parent.name}/{path.name}"
    key = int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key)
        cloud = SamplePoints(num_points, include_normals=True)(mesh)
    pos = cloud.pos - cloud.pos.mean(dim=0)
    pos = pos / pos.norm(dim=1).max().clamp(min=1e-12)
    return _turn(pos), _turn(cloud.normal)


def _turn(values: Tensor) -> Tensor:
    """A quarter about the first axis: (x, y, z) to (x, z, -y)."""
    return torch.stack([values[:, 0], values[:, 2], -values[:, 1]], dim=1)
