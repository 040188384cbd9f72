"""Clusters as figures that a browser can turn, zoom and point into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcluster.app.choices import Place
from pointcluster.app.look import Look, scene_of
from pointcluster.app.point_text import position_words
from pointcluster.app.shown import Shown
from pointcluster.viz.figure_3d import figure_of
from pointcluster.viz.scene import Panel

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 460
_AWAY = 1.08  # steps back, so that a cloud keeps inside when it is turned
_UNUSED = [
    "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "tableRotation",
    "resetCameraLastSave3d", "zoom3d", "pan3d", "orbitRotation",
]  # fmt: skip
_HOVER = (
    "point %{customdata[0]}<br>cluster %{customdata[1]}<br>similarity %{customdata[2]:.3f}<br>"
    "centre at %{text}<extra></extra>"
)


def figures(shown: Shown, places: Sequence[Place], look: Look) -> list[Figure]:
    """One figure for each place, with colours that go together.

    Hovering over a point tells its number, its cluster, its similarity to the centre and where this
    is; `customdata` holds these numbers, too.

    Args:
        shown: What the user looks at.
        places: Which heads' clusters.
        look: How.

    Raises:
        ImportError: Plotly is not installed.
    """
    different = list(dict.fromkeys(places))
    scene = scene_of(shown, different, look)
    found = {}
    for place, panel in zip(different, scene.panels, strict=True):
        figure = figure_of([scene._replace(rows=((panel,),), original=False)])
        found[place] = _finished(figure, shown, panel)
    return [found[place] for place in places]


def _finished(figure: Figure, shown: Shown, panel: Panel) -> Figure:
    """Let every point answer for itself, and keep the view between two drawings."""
    told, words = _told(panel), _words(shown, panel)
    for trace in figure.data:
        if trace.type == "heatmap":  # one for all pixels
            shape = shown.data.shape[2:]
            told, words = told.reshape(*shape, 3), words.reshape(shape)
        elif trace.hoverinfo == "skip" or trace.type == "image":
            continue
        trace.update(customdata=told, text=words, hovertemplate=_HOVER)
    eye = figure.layout.scene.camera.eye
    if shown.network.kind == "scan":
        eye.x, eye.y, eye.z = (_AWAY * each for each in (eye.x, eye.y, eye.z))
    title = {"text": panel.entry, "x": 0.015, "y": 0.985, "yanchor": "top", "font": {"size": 14}}
    return figure.update_layout(
        height=HEIGHT,
        margin={"l": 0, "r": 0, "t": 36, "b": 4},
        title=title,
        modebar={"remove": _UNUSED},
        # The same input keeps the view that the user turned or zoomed to.
        uirevision=f"{shown.source.name} {shown.size} {shown.up} {shown.network.title}",
    )


def _told(panel: Panel) -> np.ndarray:
    """Of every point its number, its cluster as the network counts, and the similarity. [n, 3]"""
    number = np.arange(len(panel.index))
    told: Any = [number, panel.center[panel.index], panel.similarity]
    return np.stack(told, axis=1).astype(np.float32)


def _words(shown: Shown, panel: Panel) -> np.ndarray:
    """Where the centre of every point's cluster sits. [n]"""
    where = np.zeros((len(panel.center), panel.center_pos.shape[1]))
    used = panel.center_cluster >= 0
    where[panel.center_cluster[used]] = panel.center_pos[used]
    return np.array([position_words(shown, each) for each in where.tolist()])[panel.index]
