"""Clusters in a browser, by Plotly."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from pointcluster._optional import installed_by
from pointcluster.files import write_whole
from pointcluster.models.results import PointClusters
from pointcluster.viz.borders import border_lines, filled
from pointcluster.viz.camera import View, in_space, plotly_camera
from pointcluster.viz.scene import (
    Panel,
    Scene,
    make_scenes,
    over_time,
    painted,
    pixels,
    positions,
    shown_centers,
)

HOVER = "centre %{customdata[0]}, similarity %{customdata[1]:.3f}, region %{customdata[2]}"


def figure_3d(
    data: Tensor | Data,
    clusters: PointClusters | Mapping[str, PointClusters] | Sequence[Any],
    **look: Any,
) -> Any:
    """A Plotly figure of the clusters: a cloud that can be turned, a picture to zoom into.

    One panel is seen at a time, and a menu chooses which; of a sequence over time, a slider. The
    mouse over a point tells its centre, similarity and region.

    Args:
        data: As :func:`draw`.
        clusters: As :func:`draw`, or a sequence of such.
        look: The other keywords of :func:`draw`.

    Raises:
        ImportError: Plotly is not installed.
        IndexError, TypeError, ValueError: As :func:`draw`.
    """
    return figure_of(make_scenes(data, over_time(clusters), **look))


def figure_of(scenes: Sequence[Scene], *, wide: float = 1.25) -> Any:
    """The Plotly figure of scenes of the same data, a cloud in a frame of so many heights."""
    with installed_by("viz"):
        from plotly import graph_objects as go

    first = scenes[0]
    picture, start = first.subject.is_picture, int(first.original)
    steps = [("the picture", [_image(go, pixels(first))])] if first.original else []
    for number, scene in enumerate(scenes):
        for panel in scene.panels:
            traces = _flat(go, scene, panel) if picture else _solid(go, scene, panel)
            steps.append((panel.title or f"step {number}", traces))
    figure = go.Figure()
    for i, (_, traces) in enumerate(steps):
        for trace in traces:
            trace.visible = i == start
            figure.add_trace(trace)
    owner = np.repeat(np.arange(len(steps)), [len(traces) for _, traces in steps])
    choices = [
        {"label": label, "method": "restyle", "args": [{"visible": (owner == i).tolist()}]}
        for i, (label, _) in enumerate(steps)
    ]
    figure.update_layout(
        title={"text": first.title, "x": 0.5, "xanchor": "center"} if first.title else None,
        template="none",
        showlegend=False,
        margin={"l": 10, "r": 10, "t": 60 if first.title or len(steps) > 1 else 10, "b": 10},
        hoverlabel={"bgcolor": "white", "font": {"color": "black"}},
    )
    if len(scenes) > 1:
        figure.update_layout(sliders=[{"active": start, "steps": choices, "pad": {"t": 10}}])
        figure.update_layout(margin={"b": 80})
    elif len(steps) > 1:
        menu = {"active": start, "buttons": choices, "showactive": True}
        place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 8}}
        figure.update_layout(updatemenus=[menu | place])
    if picture:
        height, width = first.subject.size
        row, column = [height - 0.5, -0.5], [-0.5, width - 0.5]
        figure.update_xaxes(visible=False, range=column, constrain="domain")
        figure.update_yaxes(visible=False, range=row, scaleanchor="x", constrain="domain")
    else:
        flat = first.subject.pos.shape[1] == 2
        view = View(turn=0, tilt=0) if flat else View(first.up)
        figure.update_layout(scene=plotly_camera(positions(first), view, wide))
    return figure


def write_page(
    path: str | os.PathLike[str], figure: Any, title: str, script: str | None = None
) -> Path:
    """Write a figure as a page that needs no network: Plotly's own program is in it.

    Args:
        path: The page.
        figure: Plotly's figure.
        title: Of the page.
        script: What the browser runs once it is drawn.
    """
    text = figure.to_html(
        default_height="100vh",
        post_script=script,
        config={"displaylogo": False, "responsive": True},
    )
    head = (
        f"<head><title>{escape(title)}</title><style>body {{margin: 0; overflow: hidden}}</style>"
    )
    write_whole(path, text.replace("<head>", head, 1))
    return Path(path)


def dots(go: Any, where: np.ndarray, marker: Mapping[str, Any], **told: Any) -> Any:
    """A Plotly trace of points in space [n, 3]."""
    x, y, z = where.astype(np.float32).T
    return go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, **told)


def marker_size(count: int) -> float:
    """Pixels of a point of so many."""
    return float(np.clip(120 / np.sqrt(count), 1.5, 6))


def hex_colours(colours: np.ndarray) -> list[str]:
    """Colours from 0 to 1 as pages write them, `#rrggbb`."""
    rounded = np.rint(255 * colours).astype(np.int64) @ [65536, 256, 1]
    return [f"#{number:06x}" for number in rounded]


def _solid(go: Any, scene: Scene, panel: Panel) -> list[Any]:
    """A cloud's points and centres."""
    pos, chosen = positions(scene), scene.highlight
    size, black = marker_size(len(pos)), {"width": 2, "color": "black"}
    told = [panel.center[panel.index], panel.similarity, panel.region]
    colour = {"size": size, "color": hex_colours(painted(scene, panel)), "line": {"width": 0}}
    hover = {"customdata": np.stack(told, axis=1, dtype=np.float32)}
    traces = [dots(go, pos, colour, **hover, hovertemplate=HOVER + "<extra></extra>")]
    where, centre_colour = shown_centers(scene, panel)
    if scene.centers and len(where):
        ring = {"size": size + 2.5, "color": hex_colours(centre_colour), "line": black}
        traces.append(dots(go, in_space(where, False), ring, hoverinfo="skip"))
    if chosen is not None:
        star = {"size": size + 4, "symbol": "diamond", "color": "white", "line": black}
        traces.append(dots(go, pos[[chosen]], star, hoverinfo="skip"))
    return traces


def _flat(go: Any, scene: Scene, panel: Panel) -> list[Any]:
    """A picture under its clusters, borders and centres."""
    shows = scene.subject.shows
    assert shows is not None
    told = np.where(shows >= 0, panel.center[panel.index][shows], -1)
    hover = "row %{y}, column %{x}: centre %{z}<extra></extra>"
    traces = [
        _image(go, pixels(scene, panel)),
        go.Heatmap(z=told, opacity=0, showscale=False, hovertemplate=hover),
    ]
    if scene.borders:
        lines = border_lines(filled(shows, panel.region))
        gap = np.full((len(lines), 1, 2), np.nan)
        x, y = np.concatenate([np.reshape(lines, (-1, 2, 2)), gap], axis=1).reshape(-1, 2).T
        white = {"color": "white", "width": 1.5}
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=white, hoverinfo="skip"))

    def mark(where: np.ndarray, **marker: Any) -> None:
        y, x = where.T
        traces.append(go.Scatter(x=x, y=y, mode="markers", marker=marker, hoverinfo="skip"))

    where, colour = shown_centers(scene, panel)
    if scene.centers and len(where):
        mark(where, size=9, color=hex_colours(colour), line={"width": 1.5, "color": "white"})
    if scene.highlight is not None:
        black = {"width": 1.5, "color": "black"}
        chosen = scene.subject.pos[[scene.highlight]]
        mark(chosen, size=14, symbol="star", color="white", line=black)
    return traces


def _image(go: Any, values: np.ndarray) -> Any:
    with installed_by("viz"):
        from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(file, format="PNG")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return go.Image(source=f"data:image/png;base64,{text}", hoverinfo="skip")
