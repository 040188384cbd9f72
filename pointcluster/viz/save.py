"""Clusters as a file, whatever its kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.film import write_film
from pointcluster.viz.html import figure_of, write_page
from pointcluster.viz.open3d import write_points
from pointcluster.viz.paint import paint
from pointcluster.viz.scene import Scene, make_scenes, over_time, painted, positions

KINDS = (".png", ".svg", ".pdf", ".ply", ".pcd", ".html", ".gif", ".mp4")
"""Suffixes of files that can be written."""


def save(
    path: str | os.PathLike[str],
    data: Tensor | Data,
    clusters: PointClusters | Mapping[str, PointClusters] | Sequence[Any],
    *,
    fps: float | None = None,
    **look: Any,
) -> Path:
    """Write the clusters of a picture or a cloud as a file; the suffix says of which kind.

    - ``.png``, ``.svg``, ``.pdf``: the picture that :func:`draw` draws.
    - ``.html``: a page that needs no network, with the figure of :func:`figure_3d`.
    - ``.ply``, ``.pcd``: the points in their clusters' colours; several panels side by side.
    - ``.gif``, ``.mp4``: a sequence over time; or a cloud that turns, or the clusterings of a
      picture one after the other.

    The file is written beside an old one and renamed.

    Args:
        path: The file.
        data: As :func:`draw`.
        clusters: As :func:`draw`; for films and pages also a sequence of such over time.
        fps: Pictures a second of a film.
        look: The other keywords of :func:`draw`.

    Returns:
        The path.

    Raises:
        ImportError: What writes such files is not installed; the message says how to.
        IndexError, TypeError: As :func:`draw`.
        ValueError: As :func:`draw`, or files of such a suffix cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"{path}: clusters are written as {' '.join(KINDS)}")
    film = kind in (".gif", ".mp4")
    if fps is not None and not film:
        raise ValueError(f"{path}: fps is for .gif and .mp4")
    steps = over_time(clusters)
    if len(steps) > 1 and not film and kind != ".html":
        raise ValueError(f"{path}: a sequence over time is written as .gif, .mp4 or .html")
    scenes = make_scenes(data, steps, **look)
    if film:
        return write_film(path, scenes, fps=fps)
    if kind == ".html":
        return write_page(path, figure_of(scenes), scenes[0].title or "Clusters")
    if kind in (".ply", ".pcd"):
        return write_cloud(path, scenes[0])
    return paint(scenes[0]).save(path)


def write_cloud(path: str | os.PathLike[str], scene: Scene) -> Path:
    """Write the points in the colours of their clusters as .ply or .pcd.

    One panel keeps the points where they are; several lie side by side along the first axis, a
    tenth of their width apart. A picture lies in the plane of the first two axes, a pixel 1 wide,
    its top up.

    Raises:
        ImportError: Open3D cannot be loaded.
        OSError: The file cannot be written.
    """
    pos = positions(scene)
    shift = np.array([1.1 * max(float(np.ptp(pos[:, 0])), 1e-9), 0, 0])
    points = np.concatenate([pos + i * shift for i in range(len(scene.panels))])
    colours = np.concatenate([painted(scene, panel) for panel in scene.panels])
    return write_points(path, points, colours)
