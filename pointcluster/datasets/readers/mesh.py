"""Meshes as points of their surface: `.ply .obj .off .stl .glb`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster._optional import needed_for
from pointcluster.datasets.readers.columns import to_unit
from pointcluster.datasets.readers.glb import read_glb
from pointcluster.datasets.readers.obj import read_obj
from pointcluster.datasets.readers.off import read_off
from pointcluster.datasets.readers.ply import read_ply
from pointcluster.datasets.readers.polygons import triangulate
from pointcluster.datasets.readers.stl import read_stl
from pointcluster.datasets.readers.whole import whole

READERS: dict[str, Any] = {
    ".ply": read_ply, ".obj": read_obj, ".off": read_off, ".stl": read_stl, ".glb": read_glb,
}  # fmt: skip
_FIELDS = ("pos", "normal", "color", "label")


def read_mesh(
    path: Path, points: int, seed: int | Sequence[int], label: str | None = None
) -> dict[str, np.ndarray]:
    """Read a mesh, sampled evenly by area, or the vertices of a file without faces.

    The meshes of a scene become one. The colours and labels are those of vertices or faces; of a
    `.ply` file, ``label`` names the property that holds labels.

    Raises:
        ImportError: trimesh is not installed.
        OSError: The file cannot be read.
        ValueError: It is damaged or empty, its faces have no area, or it has no such labels.
    """
    suffix = path.suffix.lower()
    if label is not None and suffix != ".ply":
        raise ValueError(f"{path} has no column {label} of labels: {suffix} files have no labels")
    with needed_for(f"reading {path.suffix} files", "trimesh"):
        import trimesh  # noqa: F401
    data = path.read_bytes()
    with whole(path):
        mesh = read_ply(data, label) if suffix == ".ply" else READERS[suffix](data)
    if not len(mesh.get("pos", ())) and not len(mesh.get("polygons", ())):
        raise ValueError(f"{path} holds neither points nor faces, or is no {suffix} file")
    for key in ("color", "face_color"):
        if key in mesh:
            color = np.asarray(mesh[key])
            mesh[key] = to_unit(path, color.astype(np.float64), color.dtype)
    if not len(mesh.get("polygons", ())):
        return {key: mesh[key] for key in _FIELDS if key in mesh}
    return _sampled(path, mesh, points, seed)


def _sampled(
    path: Path, mesh: dict[str, Any], points: int, seed: int | Sequence[int]
) -> dict[str, np.ndarray]:
    """Points of a surface, with the normals of their faces, and colours of corners or faces."""
    import trimesh

    with whole(path):
        faces, owner = triangulate(mesh["pos"], mesh["polygons"])
    corners = mesh["pos"][np.unique(faces)]
    if not np.isfinite(corners).all():
        raise ValueError(f"{path}: a corner of a face is NaN or infinite")
    if np.abs(corners).max(initial=0) > np.finfo(np.float32).max:
        raise ValueError(f"{path}: its positions reach beyond float32")
    with whole(path):
        surface = trimesh.Trimesh(mesh["pos"], faces, process=False)
        area = surface.area
    if not area > 0:
        raise ValueError(f"{path}: none of its {len(faces):,} faces has an area to sample")
    with whole(path):
        rng = np.random.default_rng(seed)
        pos, face = trimesh.sample.sample_surface(surface, points, seed=rng)[:2]
        corners = np.asarray(surface.triangles)[face]  # [P, 3, 3]
        edges = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        out = {"pos": np.asarray(pos), "normal": np.cross(*edges)}
        weights = trimesh.triangles.points_to_barycentric(corners, pos)
        if "color" in mesh:
            colors = mesh["color"][faces[face]]  # [P, 3, 3]
            out["color"] = np.clip(np.einsum("pc,pcd->pd", weights, colors), 0, 1)
        elif "face_color" in mesh:
            out["color"] = mesh["face_color"][owner[face]]
        if "face_label" in mesh:
            out["label"] = mesh["face_label"][owner[face]]
        elif "label" in mesh:  # of the nearest corner
            nearest = weights.argmax(axis=1)
            out["label"] = mesh["label"][faces[face, nearest]]
    return out
