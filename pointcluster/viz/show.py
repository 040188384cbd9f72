"""Clusters on the screen."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.display import no_display
from pointcluster.viz.draw import render_scene
from pointcluster.viz.html import figure_of
from pointcluster.viz.open3d import RendererError, show_window
from pointcluster.viz.paint import paint
from pointcluster.viz.scene import Scene, make_scenes, over_time


def show(
    data: Tensor | Data,
    clusters: PointClusters | Mapping[str, PointClusters] | Sequence[Any],
    **look: Any,
) -> Path | None:
    """Show clusters in the best way that there is here.

    - In a notebook, inline: a cloud that can be turned (Plotly), or the picture of :func:`draw`.
    - Where there is a display, a cloud in Open3D's window: S, B and H step through stages, blocks
      and heads, the arrows through all, C takes the centres away. It returns when the window is
      closed.
    - Otherwise as a picture in a file, drawn by Open3D's renderer or else by Matplotlib; one line
      says where and why.

    Args:
        data: As :func:`draw`.
        clusters: As :func:`draw`; in a notebook also a sequence of such over time.
        look: The other keywords of :func:`draw`.

    Returns:
        The file, where there is one.

    Raises:
        ImportError: Nothing here can draw; the message says what to install.
        IndexError, TypeError, ValueError: As :func:`draw`.
    """
    steps = over_time(clusters)
    scenes = make_scenes(data, steps, **look)
    if in_notebook():
        _show_inline(scenes)
        return None
    if len(scenes) > 1:
        raise ValueError("a sequence over time is shown in a notebook alone: save() writes films")
    scene = scenes[0]
    if scene.subject.is_picture:
        picture, reason = paint(scene), "pictures are shown as files"
    elif reason := no_display():
        picture = render_scene(scene)
    else:
        try:
            show_window(scene)
            return None
        except RendererError as error:
            picture, reason = paint(scene), str(error)
    path = picture.save(Path(tempfile.mkdtemp(prefix="pointcluster-")) / "clusters.png")
    print(f"{reason}: {path}", file=sys.stderr)
    return path


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel: Jupyter's, Colab's or VS Code's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def _show_inline(scenes: list[Scene]) -> None:
    from IPython.display import HTML, display

    if scenes[0].subject.is_picture and len(scenes) == 1:
        display(paint(scenes[0]))
        return
    try:
        figure = figure_of(scenes)
    except ImportError as error:
        if len(scenes) > 1:
            raise
        print(f"drawn by Matplotlib: {error}", file=sys.stderr)
        display(paint(scenes[0]))
        return
    page = figure.to_html(full_html=False, default_height=560, config={"displaylogo": False})
    display(HTML(page))
