"""A cloud drawn by Open3D's renderer, where there is one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.open3d_process import RendererError, render_panels
from pointcluster.viz.paint import paint
from pointcluster.viz.picture import Picture
from pointcluster.viz.scene import Scene, make_scene


def render(
    data: Tensor | Data, clusters: PointClusters | Mapping[str, PointClusters], **look: Any
) -> Picture:
    """Draw clusters like :func:`draw`, a cloud's points by Open3D's off-screen renderer.

    It needs Vulkan, a graphics card's or Mesa's software (`libvulkan1`,
    `mesa-vulkan-drivers`), and runs in a process of its own. Where it cannot, Matplotlib draws the
    points, too, and one line on the standard error says why.

    Args:
        data: As :func:`draw`.
        clusters: As :func:`draw`.
        look: The other keywords of :func:`draw`.

    Raises:
        ImportError, IndexError, TypeError, ValueError: As :func:`draw`.
    """
    return render_scene(make_scene(data, clusters, **look))


def render_scene(scene: Scene) -> Picture:
    """The same for a scene."""
    if scene.subject.is_picture:
        return paint(scene)
    try:
        return paint(scene, points=_by_open3d)
    except RendererError as error:
        print(f"drawn by Matplotlib: {error}", file=sys.stderr)
        return paint(scene)


def _by_open3d(
    screen: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    radius = float(np.clip(0.45 * min(size) / np.sqrt(len(screen)), 1, 8))
    return render_panels(screen, colours, size, low, high, radius)
