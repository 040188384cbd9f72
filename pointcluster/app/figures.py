"""Clusters as figures that a browser can turn, zoom and point into, as words and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcluster.app.session import Place, Shown, View
from pointcluster.viz import save
from pointcluster.viz.html import figure_of
from pointcluster.viz.scene import Panel, make_scene

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FORMATS = (".png", ".svg", ".pdf", ".html", ".ply")
"""What can be downloaded."""
HEIGHT = 460
_UNUSED = [
    "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "tableRotation",
    "resetCameraLastSave3d", "zoom3d", "pan3d", "orbitRotation",
]  # fmt: skip
_HOVER = (
    "point %{customdata[0]}<br>cluster %{customdata[1]}<br>similarity %{customdata[2]:.3f}<br>"
    "centre at %{text}<extra></extra>"
)


def figures(shown: Shown, places: Sequence[Place], view: View) -> list[Figure]:
    """One figure for each place, with colours that go together.

    Hovering over a point tells its number, its cluster, its similarity to the centre and where this
    is; `customdata` holds these numbers, too.

    Args:
        shown: What the user looks at.
        places: Which heads' clusters.
        view: How.

    Raises:
        ImportError: Plotly is not installed.
    """
    different = list(dict.fromkeys(places))
    clusters, options = drawing(shown, different, view)
    scene = make_scene(shown.data, clusters, **options)
    made = {}
    for place, panel in zip(different, scene.panels, strict=True):
        alone = scene._replace(rows=((panel,),), original=False)
        figure = figure_of([alone], wide=1.0 if len(places) > 1 else 1.25)
        made[place] = _finished(figure, shown, panel)
    return [made[place] for place in places]


def drawing(shown: Shown, places: list[Place], view: View) -> tuple[dict, dict[str, Any]]:
    """What the functions of :mod:`pointcluster.viz` take: clusters by titles, and keywords.

    Of two places with one title, which are the same, one is left.
    """
    options: dict[str, Any] = {
        "head": 0,
        "opacity": 0.6 if view.opacity is None else min(max(float(view.opacity), 0.0), 1.0),
        "borders": bool(view.borders),
        "centers": bool(view.centers),
        "highlight": point_number(shown, view.point),
        **shown.network.draw_options(),
    }
    return {str(place): shown.clusters(place).of_head(place.head) for place in places}, options


def save_view(shown: Shown, places: Sequence[Place], view: View, suffix: str) -> Path:
    """Write what is shown as a file to download.

    Args:
        shown: What the user looks at.
        places: Which heads' clusters; points in three dimensions are those of the first alone.
        view: How.
        suffix: One of :data:`FORMATS`.

    Raises:
        ImportError, OSError, ValueError: It cannot be written, or there is no such format.
    """
    if suffix not in FORMATS:
        raise ValueError(f"the format is {suffix!r}, expected one of {' '.join(FORMATS)}")
    chosen = list(places[:1] if suffix == ".ply" else places)
    clusters, options = drawing(shown, chosen, view)
    stem = "".join(c if c.isalnum() else "-" for c in Path(shown.source.name).stem).strip("-")
    place = chosen[0]
    name = f"{stem or 'clusters'}-stage{place.stage}-block{place.block}-head{place.head}{suffix}"
    path = shown.folder / name
    save(path, shown.data, clusters, **options)
    return path


def point_number(shown: Shown, wanted: str | int | None) -> int | None:
    """The number of a point, as it was typed; `None` where nothing was.

    Raises:
        ValueError: It is no number of a point.
    """
    if wanted is None or not str(wanted).strip():
        return None
    text = str(wanted).strip()
    if not (text.isascii() and text.isdigit()) or int(text[:20]) >= shown.count:
        raise ValueError(f"there is no point {text[:20]}: they go from 0 to {shown.count - 1}")
    return int(text)


def point_text(shown: Shown, place: Place, point: int) -> str:
    """A point's cluster, its similarity and its centre, as Markdown.

    Args:
        shown: What the user looks at.
        place: Which head's clusters.
        point: Number of the point.
    """
    clusters = shown.clusters(place)
    own = clusters.index[:, place.head]
    cluster = int(own[point])
    similarity = float(clusters.similarity[point, place.head])
    size = int((own == cluster).sum())
    centre = position_words(shown, _centre(shown, clusters.center_pos[cluster].tolist()))
    there = position_words(shown, _place(shown, point))
    return (
        f"**Point {point:,}** at {there}  \n"
        f"Cluster **{cluster}**, {size:,} of {shown.count:,} points  \n"
        f"Similarity **{similarity:.3f}**  \n"
        f"Centre at {centre}"
    )


def position_words(shown: Shown, pos: Sequence[float]) -> str:
    """A position in words: x, y and z of a cloud, row and column of a picture."""
    if shown.network.kind == "scan":
        return "(" + ", ".join(f"{value:.2f}" for value in pos) + ")"
    row, column = (f"{round(value, 1):g}" for value in pos)
    return f"row {row}, column {column}"


def _place(shown: Shown, point: int) -> list[float]:
    """Where a point is, in the units of the words."""
    data: Any = shown.data
    if shown.network.kind == "scan":
        pos: list[float] = data.pos[point].tolist()
        return pos
    return list(divmod(point, data.size(3)))


def _centre(shown: Shown, pos: list[float]) -> list[float]:
    """Where a centre is; networks of pictures count from -0.5 to 0.5, down and right."""
    if shown.network.kind == "scan":
        return pos
    data: Any = shown.data
    return [(each + 0.5) * (side - 1) for each, side in zip(pos, data.shape[2:], strict=True)]


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
