"""Scans with a class at every point: truth, prediction, mistakes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pointcluster._optional import installed_by
from pointcluster.files import replacing
from pointcluster.viz.camera import TURN, UP, plotly_camera, project, reach
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.html import marker_size, write_page
from pointcluster.viz.open3d_window import load_open3d
from pointcluster.viz.paint import drawn_panel, is_shaded, paint_cloud
from pointcluster.viz.picture import Picture, new_figure
from pointcluster.viz.shading import eye_dome

Labels = Tensor | np.ndarray | Sequence[int]
WIDEST = 14.0
"""Inches that a picture is wide at most."""
USUAL = {
    "ground": (0.69, 0.56, 0.41),
    "terrain": (0.69, 0.56, 0.41),
    "vegetation": (0.24, 0.55, 0.27),
    "tree": (0.24, 0.55, 0.27),
    "building": (0.77, 0.34, 0.24),
    "water": (0.27, 0.51, 0.75),
    "road": (0.45, 0.45, 0.47),
}
"""Colours that maps give to classes, by a word in their names."""
NO_CLASS, RIGHT, WRONG = (0.9, 0.9, 0.9), (0.8, 0.82, 0.85), (0.84, 0.07, 0.18)


class Panel(NamedTuple):
    """One labelling of all points."""

    title: str
    label: np.ndarray
    """Class of each point, -1: none. [N]"""
    classes: list[str]
    colours: np.ndarray
    """Of each class. [K, 3]"""
    mistakes: bool = False

    @property
    def painted(self) -> np.ndarray:
        """The colour of each point. [N, 3]"""
        return np.concatenate([self.colours, [NO_CLASS]])[self.label]


def draw_labels(
    pos: Tensor | np.ndarray,
    labels: Labels | Mapping[str, Labels],
    *,
    truth: Labels | None = None,
    classes: Sequence[str] | None = None,
    colours: np.ndarray | Sequence[Sequence[float]] | None = None,
    title: str | None = None,
    up: str = "z",
    turn: float = TURN,
    tilt: float = 35.0,
    shading: bool | None = None,
) -> Picture:
    """Draw a scan in the colours of its points' classes, with a legend of their names.

    Args:
        pos: Positions of the points.
        labels: The class of every point, counted from 0, -1 for none; or titles with such, one
            panel each.
        truth: What they should be: it stands before them, and the mistakes of each after; points
            without a true class are no mistakes.
        classes: Names of the classes.
        colours: Of the classes, red, green and blue from 0 to 1. By default maps' colours of
            ground, vegetation, buildings, water and roads, and others that differ from them.
        title: What stands above all.
        up: The axis that points up: x, y or z, or with a minus.
        turn: Degrees about the up axis from which the scan is looked at.
        tilt: Degrees from above.
        shading: Draw it closed and shaded, so that its depth is seen, instead of as dots; by
            default where there are more than 4,000 points.

    Shapes and units:
        ``pos [N, 3]``, labels ``[N]``, ``colours [K, 3]``.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: Numbers of points or classes differ, or a position is NaN or infinite.
    """
    places, panels = _checked(pos, labels, truth, classes, colours, up)
    screen, depth = project(places, turn=turn, tilt=tilt, up=up)
    low, high = reach(screen, slimmest=0.3)
    width, height = high - low
    wide = min(WIDEST / len(panels), 7.0)
    tall = wide * height / width
    legend = _legend(panels)
    columns = min(len(legend), max(2, int(wide * len(panels) / 1.5)))
    below = 0.15 + 0.22 * -(-len(legend) // columns)
    above = 0.4 + (0.35 if title else 0)
    full_width, full_height = wide * len(panels), above + tall + below
    figure = new_figure(full_width, full_height)
    if title:
        figure.text(0.5, 1 - 0.1 / full_height, title, ha="center", va="top", fontsize=13)
    images: Any = [None] * len(panels)
    if is_shaded(shading, len(places)):
        size = round(wide * figure.dpi), round(tall * figure.dpi)
        points = np.concatenate([screen, depth[:, None]], axis=1)
        images = eye_dome(points, np.stack([p.painted for p in panels]), size, low, high)
    drawn = []
    for i, (panel, image) in enumerate(zip(panels, images, strict=True)):
        box = (i / len(panels), below / full_height, 1 / len(panels), tall / full_height)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        colour = panel.painted
        if image is None:
            _, colour = paint_cloud(axes, places, colour, turn=turn, tilt=tilt, up=up, fade=0.3)
        else:
            axes.imshow(image, extent=(low[0], high[0], low[1], high[1]), aspect="auto")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        middle, top = (i + 0.5) / len(panels), 1 - (above - 0.1) / full_height
        figure.text(middle, top, panel.title, ha="center", va="bottom", fontsize=11)
        drawn.append(drawn_panel(figure, panel.title, axes, screen, colour))
    _add_legend(figure, legend, columns)
    return Picture(figure, tuple(drawn))


def save_labels(
    path: str | os.PathLike[str],
    pos: Tensor | np.ndarray,
    labels: Labels | Mapping[str, Labels],
    *,
    truth: Labels | None = None,
    classes: Sequence[str] | None = None,
    colours: np.ndarray | Sequence[Sequence[float]] | None = None,
    title: str | None = None,
    up: str = "z",
    turn: float = TURN,
    tilt: float = 35.0,
    shading: bool | None = None,
) -> Path:
    """Write a scan in the colours of its points' classes as a file; the suffix says of which kind.

    - ``.png``, ``.svg``, ``.pdf``: the picture that :func:`draw_labels` draws.
    - ``.html``: a page that needs no network, where the panels turn together, and a click in the
      legend takes a class away.
    - ``.ply``: the points in the colours of the first labels, with each labelling as a property:
      ``label``, or the titles; and ``truth``.

    Args:
        path: The file.
        pos: As :func:`draw_labels`, as are all others.
        labels: As there.
        truth: As there.
        classes: As there.
        colours: As there.
        title: As there.
        up: As there.
        turn: As there.
        tilt: As there.
        shading: Of pictures, as there.

    Returns:
        The path.

    Raises:
        ImportError: What writes such files is not installed; the message says how to.
        ValueError: As :func:`draw_labels`, or files of such a suffix cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".svg", ".pdf", ".html", ".ply"):
        raise ValueError(f"{path}: labels are written as .png .svg .pdf .html .ply")
    what: dict[str, Any] = {"truth": truth, "classes": classes, "colours": colours, "up": up}
    if kind in (".png", ".svg", ".pdf"):
        look: dict[str, Any] = {"title": title, "turn": turn, "tilt": tilt, "shading": shading}
        return draw_labels(pos, labels, **what, **look).save(path)
    places, panels = _checked(pos, labels, **what)
    if kind == ".html":
        figure = _figure(places, panels, title or "", {"up": up, "turn": turn, "tilt": tilt})
        return write_page(path, figure, title or "Labels", TOGETHER)
    return _write_ply(path, places, panels, alone=not isinstance(labels, Mapping))


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for every class: the usual one of its name, or one unlike those. [K, 3]"""
    chosen: dict[int, tuple[float, ...]] = {}
    for i, name in enumerate(classes):
        usual = next((colour for word, colour in USUAL.items() if word in name.lower()), None)
        if usual is not None and usual not in chosen.values():
            chosen[i] = usual
    others = PALETTE.tolist()
    if len(classes) > len(others):
        with installed_by("viz"):
            from matplotlib import colormaps

        others += colormaps["tab20"](np.arange(20))[:, :3].tolist()
        others += colormaps["gist_ncar"](np.linspace(0.05, 0.95, len(classes)))[:, :3].tolist()
        others = others[: len(classes) + len(USUAL)]
    for i in range(len(classes)):
        if i not in chosen:
            used = np.array([*chosen.values(), NO_CLASS])
            away = np.linalg.norm(np.array(others)[:, None] - used, axis=2).min(axis=1)
            chosen[i] = tuple(others[int(away.argmax())])
    return np.array([chosen[i] for i in range(len(classes))]).reshape(-1, 3)


def _checked(
    pos: Any, labels: Any, truth: Any, classes: Any, colours: Any, up: str
) -> tuple[np.ndarray, list[Panel]]:
    """Positions, and the panels: the truth, the labels, and their mistakes."""
    places = _array(pos).astype(np.float64)
    if places.ndim != 2 or places.shape[1] != 3 or not len(places):
        raise ValueError(f"pos is {list(places.shape)}, expected [N, 3] of at least one point")
    if not np.isfinite(places).all():
        raise ValueError("a position is NaN or infinite")
    if up not in UP:
        raise ValueError(f"up is {up!r}, expected x, y, z, -x, -y or -z")
    alone = "" if truth is None else "prediction"
    named = labels if isinstance(labels, Mapping) else {alone: labels}
    arrays = {str(name): _array(values) for name, values in named.items()}
    if truth is not None:
        arrays = {"truth": _array(truth)} | arrays
    if not arrays:
        raise ValueError("there are no labels to draw")
    for name, values in arrays.items():
        if values.shape != (len(places),) or values.dtype.kind not in "iub":
            raise ValueError(
                f"the labels{f' of {name}' if name else ''} are {values.dtype} "
                f"{list(values.shape)}, expected whole numbers [{len(places)}]"
            )
    arrays = {name: values.astype(np.int64) for name, values in arrays.items()}
    most = max(int(values.max()) for values in arrays.values()) + 1
    names = [f"class {i}" for i in range(most)] if classes is None else [str(c) for c in classes]
    if most > len(names):
        raise ValueError(f"a label is {most - 1}, and there are {len(names)} classes")
    shades = class_colours(names) if colours is None else np.asarray(colours, dtype=np.float64)
    if shades.shape != (len(names), 3):
        raise ValueError(f"colours are {list(shades.shape)}, expected {[len(names), 3]}")
    panels = [Panel(name, np.maximum(values, -1), names, shades) for name, values in arrays.items()]
    if truth is None:
        return places, panels
    true = panels[0].label
    for panel in panels[1:]:
        wrong = np.where(true < 0, -1, panel.label != true)
        share = (wrong == 1).sum() / max((true >= 0).sum(), 1)
        about = f" of {panel.title}" if len(arrays) > 2 else ""
        title = f"mistakes{about} ({share:.1%} of the points)"
        panels.append(Panel(title, wrong, ["right", "mistake"], np.array([RIGHT, WRONG]), True))
    return places, panels


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _legend(panels: Sequence[Panel]) -> dict[str, tuple[float, ...]]:
    """Names and colours of what is seen somewhere."""
    legend: dict[str, tuple[float, ...]] = {}
    for panel in panels:
        for k in np.unique(panel.label).tolist():
            name = panel.classes[k] if k >= 0 else "no class"
            legend[name] = tuple(panel.colours[k]) if k >= 0 else NO_CLASS
    order = [*panels[0].classes, "right", "mistake", "no class"]
    return {name: legend[name] for name in order if name in legend}


def _add_legend(figure: Any, legend: Mapping[str, Any], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="s", linestyle="", markersize=8, color=colour, label=name)
        for name, colour in legend.items()
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        borderaxespad=0.2,
        handletextpad=0.2,
    )


# Turning one panel turns the others.
TOGETHER = """
const plot = document.getElementById("{plot_id}");
let turning = false;
plot.on("plotly_relayout", (event) => {
  const key = Object.keys(event).find((name) => name.endsWith(".camera"));
  if (turning || !key) return;
  turning = true;
  const scenes = Object.keys(plot._fullLayout).filter((name) => /^scene\\d*$/.test(name));
  const all = Object.fromEntries(scenes.map((name) => [name + ".camera", event[key]]));
  Plotly.relayout(plot, all).then(() => { turning = false; });
});
"""


def _figure(pos: np.ndarray, panels: Sequence[Panel], title: str, view: Mapping[str, Any]) -> Any:
    """A Plotly figure of the panels, side by side."""
    with installed_by("viz"):
        from plotly import graph_objects as go

    figure = go.Figure()
    pos = (pos - pos.mean(axis=0)).astype(np.float32)  # such as lie far from 0 keep their digits
    size = max(2.0, marker_size(len(pos)))
    camera = plotly_camera(pos, **view, wide=1.6 / len(panels) ** 0.6)
    seen: set[str] = set()
    for i, panel in enumerate(panels):
        scene = f"scene{i + 1 if i else ''}"
        for k in np.unique(panel.label).tolist():
            name = panel.classes[k] if k >= 0 else "no class"
            colour = panel.colours[k] if k >= 0 else NO_CLASS
            red, green, blue = np.rint(255 * np.asarray(colour)).astype(int)
            x, y, z = pos[panel.label == k].T
            marker = {"size": size, "color": f"rgb({red},{green},{blue})", "line": {"width": 0}}
            figure.add_trace(
                go.Scatter3d(
                    x=x,
                    y=y,
                    z=z,
                    mode="markers",
                    marker=marker,
                    name=name,
                    legendgroup=name,
                    showlegend=name not in seen,
                    scene=scene,
                    hoverinfo="name",
                )
            )
            seen.add(name)
        domain = {"x": [i / len(panels), (i + 1) / len(panels)], "y": [0, 1]}
        figure.update_layout({scene: camera | {"domain": domain}})
        middle = (i + 0.5) / len(panels)
        above = {"text": panel.title, "x": middle, "y": 1, "xref": "paper", "yref": "paper"}
        figure.add_annotation(above | {"showarrow": False, "yanchor": "bottom"})
    figure.update_layout(
        title={"text": title, "x": 0.5, "xanchor": "center"} if title else None,
        template="none",
        margin={"l": 0, "r": 0, "t": 70 if title else 30, "b": 10},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "itemsizing": "constant"},
    )
    return figure


def _write_ply(path: Path, pos: np.ndarray, panels: Sequence[Panel], *, alone: bool) -> Path:
    open3d = load_open3d()
    cloud = open3d.t.geometry.PointCloud()
    cloud.point.positions = open3d.core.Tensor(pos)
    labellings = [panel for panel in panels if not panel.mistakes]
    first = labellings[1 if panels[-1].mistakes else 0]  # the truth comes before it
    shades = np.rint(255 * first.painted).astype(np.uint8)
    cloud.point.colors = open3d.core.Tensor(shades)
    for panel in labellings:
        name = "label" if alone and panel is first else re.sub(r"\W+", "_", panel.title)
        cloud.point[name] = open3d.core.Tensor(panel.label[:, None].astype(np.int32))
    with replacing(path) as temporary:
        if not open3d.t.io.write_point_cloud(str(temporary), cloud):
            raise OSError(f"open3d could not write {path}")
    return path
