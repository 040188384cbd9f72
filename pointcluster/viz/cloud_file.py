"""Clusters as coloured points in a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pointcluster.files import replacing
from pointcluster.viz.open3d_import import load_open3d
from pointcluster.viz.scene import Scene, painted


def write_cloud(path: str | os.PathLike[str], scene: Scene) -> Path:
    """Write the points in the colours of their clusters as .ply or .pcd.

    One panel keeps the points where they are; several lie side by side along the first axis, a
    tenth of their width apart. A picture lies in the plane of the first two axes, a pixel 1 wide,
    its top up.

    Raises:
        ImportError: Open3D cannot be loaded.
        OSError: The file cannot be written.
    """
    open3d = load_open3d()
    pos = positions(scene)
    step = 1.1 * max(float(np.ptp(pos[:, 0])), 1e-9)
    shift = np.array([step, 0, 0])
    cloud = open3d.geometry.PointCloud()
    points = np.concatenate([pos + i * shift for i in range(len(scene.panels))])
    colours = np.concatenate([painted(scene, panel) for panel in scene.panels])
    cloud.points = open3d.utility.Vector3dVector(points)
    cloud.colors = open3d.utility.Vector3dVector(colours)
    with replacing(path) as temporary:
        if not open3d.io.write_point_cloud(str(temporary), cloud):
            raise OSError(f"open3d could not write {path}")
    return Path(path)


def positions(scene: Scene) -> np.ndarray:
    """Where the points are in space, those of a picture or of a flat cloud in a plane. [n, 3]"""
    pos = scene.subject.pos
    return in_space(pos, scene.subject.is_picture)


def in_space(pos: np.ndarray, picture: bool) -> np.ndarray:
    """Positions with three axes; (row, column) become right and up. [n, 3]"""
    if pos.shape[1] == 3:
        return pos
    flat = np.stack([pos[:, 1], -pos[:, 0]], axis=1) if picture else pos
    return np.concatenate([flat, np.zeros((len(pos), 1))], axis=1)
