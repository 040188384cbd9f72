"""Clusters as a picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.open3d import RendererError, render_panels
from pointcluster.viz.paint import paint
from pointcluster.viz.picture import Picture
from pointcluster.viz.scene import Scene, make_scene


def draw(
    data: Tensor | Data,
    clusters: PointClusters | Mapping[str, PointClusters],
    *,
    head: int | None = None,
    cloud: int = 0,
    opacity: float | None = None,
    borders: bool | None = None,
    centers: bool = True,
    highlight: int | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    title: str | None = None,
    original: bool = True,
    up: str = "y",
    shading: bool | None = None,
) -> Picture:
    """Draw the clusters of a picture or a cloud, without a display.

    Clusters that touch have different colours, and so have those of one region, unless there are
    more of them than colours; people with any kind of colour vision tell these apart. From panel to
    panel a cluster keeps the colour of the one that it shares most points with, unless one that it
    touches has it.

    Args:
        data: One picture (a tensor, or its points) or cloud, or a batch of them.
        clusters: What ``model.clusters(data, ...)`` gave, or titles with such: one panel each, as
            :func:`stage_clusters` makes them.
        head: One head alone; negative ones count from the end. By default all, side by side.
        cloud: Which picture or cloud of the batch.
        opacity: How much of the clusters' colours lies over the points' own, 0 to 1; by default 0.6
            for pictures and 1 for clouds.
        borders: Show where regions end: lines in pictures, darker points in clouds. By default in
            pictures alone.
        centers: Mark the centres; grey ones have no points.
        highlight: Number of a point in its cloud: its cluster stands out, all else is pale.
        mean: What was taken off a picture's channels, to be undone, and by what they were divided.
        std: See `mean`.
        title: What stands above all.
        original: Show a picture beside its clusters.
        up: The axis of a cloud that points up: x, y or z, or with a minus.
        shading: Draw a cloud closed and shaded, so that its depth is seen, instead of as dots; by
            default one of more than 4,000 points.

    Raises:
        ImportError: Matplotlib is not installed.
        IndexError: There is no such head, cloud or point.
        TypeError, ValueError: The clusters do not belong to the data, or a keyword makes no sense.
    """
    scene = make_scene(
        data,
        clusters,
        head=head,
        cloud=cloud,
        opacity=opacity,
        borders=borders,
        centers=centers,
        highlight=highlight,
        mean=mean,
        std=std,
        title=title,
        original=original,
        up=up,
        shading=shading,
    )
    return paint(scene)


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
    if not scene.subject.is_picture:
        try:
            return paint(scene, points=render_panels)
        except RendererError as error:
            print(f"drawn by Matplotlib: {error}", file=sys.stderr)
    return paint(scene)
