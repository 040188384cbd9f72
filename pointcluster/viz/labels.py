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
from pointcluster.viz.camera import UP, View, plotly_camera, project, reach, upright
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.html import dots, hex_colours, marker_size, write_page
from pointcluster.viz.open3d import write_points
from pointcluster.viz.paint import paint_cloud
from pointcluster.viz.picture import Picture, drawn_panel, new_figure
from pointcluster.viz.shading import eye_dome, is_shaded, under_the_sky

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
PALEST, DARKEST = (0.97, 0.95, 0.70), (0.02, 0.10, 0.08)
"""What shades of a usual colour tend to, where several classes have it."""
NO_CLASS, RIGHT, WRONG = (0.93, 0.93, 0.93), (0.80, 0.82, 0.85), (0.84, 0.07, 0.18)


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

    @property
    def seen(self) -> list[tuple[int, str, np.ndarray]]:
        """Number, name and colour of each class that points have."""
        names, colours = [*self.classes, "no class"], [*self.colours, np.array(NO_CLASS)]
        return [(k, names[k], colours[k]) for k in np.unique(self.label).tolist()]


class LabelledScan(NamedTuple):
    """A scan, its labellings, and how they are looked at."""

    pos: np.ndarray
    """Positions. [N, 3]"""
    panels: list[Panel]
    title: str
    view: View
    shaded: bool

    @property
    def legend(self) -> dict[str, np.ndarray]:
        """Names and colours of what is seen somewhere."""
        seen = {name: colour for panel in self.panels for _, name, colour in panel.seen}
        order = [*self.panels[0].classes, "right", "mistake", "no class"]
        return {name: seen[name] for name in order if name in seen}


def draw_labels(
    pos: Tensor | np.ndarray,
    labels: Labels | Mapping[str, Labels],
    *,
    truth: Labels | None = None,
    classes: Sequence[str] | None = None,
    colours: np.ndarray | Sequence[Sequence[float]] | None = None,
    title: str | None = None,
    up: str = "z",
    turn: float = 35.0,
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
    scan = labelled_scan(
        pos, labels, truth=truth, classes=classes, colours=colours, title=title, up=up, turn=turn,
        tilt=tilt, shading=shading,
    )  # fmt: skip
    return _drawn(scan)


def save_labels(
    path: str | os.PathLike[str],
    pos: Tensor | np.ndarray,
    labels: Labels | Mapping[str, Labels],
    **look: Any,
) -> Path:
    """Write a scan in the colours of its points' classes as a file; the suffix says of which kind.

    - ``.png``, ``.svg``, ``.pdf``: the picture that :func:`draw_labels` draws.
    - ``.html``: a page that needs no network, where the panels turn together, and a click in the
      legend takes a class away.
    - ``.ply``: the points in the colours of the first labels, with each labelling as a property:
      ``label``, or the titles; and ``truth``.

    Args:
        path: The file.
        pos: As :func:`draw_labels`.
        labels: As there.
        look: The other keywords of :func:`draw_labels`.

    Returns:
        The path.

    Raises:
        ImportError: What writes such files is not installed; the message says how to.
        TypeError, ValueError: As :func:`draw_labels`, or files of such a suffix cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".svg", ".pdf", ".html", ".ply"):
        raise ValueError(f"{path}: labels are written as .png .svg .pdf .html .ply")
    scan = labelled_scan(pos, labels, **look)
    if kind == ".html":
        return write_page(path, _figure(scan), scan.title or "Labels", TOGETHER)
    if kind != ".ply":
        return _drawn(scan).save(path)
    kept = [panel for panel in scan.panels if not panel.mistakes]
    first = kept[1 if scan.panels[-1].mistakes else 0]  # the truth comes before it
    alone = not isinstance(labels, Mapping)
    fields = {
        "label" if alone and panel is first else re.sub(r"\W+", "_", panel.title): panel.label
        for panel in kept
    }
    return write_points(path, scan.pos, first.painted, fields)


def class_colours(classes: Sequence[str]) -> np.ndarray:
    """A colour for every class: the usual one of its name, or one unlike those. [K, 3]

    Of several classes with one usual colour, those before the middle one are paler, those after it
    darker: from grass to trees.
    """
    usual = [
        next((USUAL[word] for word in USUAL if word in name.lower()), None) for name in classes
    ]
    chosen: dict[int, np.ndarray] = {}
    for colour in filter(None, dict.fromkeys(usual)):
        alike = [i for i, other in enumerate(usual) if other == colour]
        steps = np.arange(len(alike)) - (len(alike) - 1) // 2
        for i, step in zip(alike, 0.5 * steps / max(1, steps.max()), strict=True):
            end = np.array(PALEST if step < 0 else DARKEST)
            chosen[i] = (1 - abs(step)) * np.array(colour) + abs(step) * end
    others = PALETTE
    if len(classes) > len(others):
        with installed_by("viz"):
            from matplotlib import colormaps

        more = np.linspace(0.05, 0.95, len(classes))
        many = [colormaps["tab20"](np.arange(20)), colormaps["gist_ncar"](more)]
        others = np.concatenate([others, np.concatenate(many)[:, :3]])[: len(classes) + len(USUAL)]
    for i in range(len(classes)):
        if i not in chosen:
            used = np.array([*chosen.values(), NO_CLASS])
            away = np.linalg.norm(others[:, None] - used, axis=2).min(axis=1)
            chosen[i] = others[int(away.argmax())]
    return np.array([chosen[i] for i in range(len(classes))]).reshape(-1, 3)


def labelled_scan(
    pos: Tensor | np.ndarray,
    labels: Labels | Mapping[str, Labels],
    *,
    truth: Labels | None = None,
    classes: Sequence[str] | None = None,
    colours: np.ndarray | Sequence[Sequence[float]] | None = None,
    title: str | None = None,
    up: str = "z",
    turn: float = 35.0,
    tilt: float = 35.0,
    shading: bool | None = None,
) -> LabelledScan:
    """What :func:`draw_labels` draws: the truth, the labels, and their mistakes.

    Raises:
        ValueError: As there.
    """
    places = _array(pos).astype(np.float64)
    if places.ndim != 2 or places.shape[1] != 3 or not len(places):
        raise ValueError(f"pos is {list(places.shape)}, expected [N, 3] of at least one point")
    if not np.isfinite(places).all():
        raise ValueError("a position is NaN or infinite")
    if up not in UP:
        raise ValueError(f"up is {up!r}, expected x, y, z, -x, -y or -z")
    alone = "" if truth is None else "prediction"
    named = labels if isinstance(labels, Mapping) else {alone: labels}
    arrays = {} if truth is None else {"truth": _array(truth)}
    arrays |= {str(name): _array(values) for name, values in named.items()}
    if not arrays:
        raise ValueError("there are no labels to draw")
    for name, values in arrays.items():
        if values.shape != (len(places),) or values.dtype.kind not in "iub":
            raise ValueError(
                f"the labels{f' of {name}' if name else ''} are {values.dtype} "
                f"{list(values.shape)}, expected whole numbers [{len(places)}]"
            )
    arrays = {name: values.astype(np.int64).clip(-1) for name, values in arrays.items()}
    most = max(int(values.max()) for values in arrays.values()) + 1
    names = [f"class {i}" for i in range(most)] if classes is None else [str(c) for c in classes]
    if most > len(names):
        raise ValueError(f"a label is {most - 1}, and there are {len(names)} classes")
    shades = class_colours(names) if colours is None else np.asarray(colours, dtype=np.float64)
    if shades.shape != (len(names), 3):
        raise ValueError(f"colours are {list(shades.shape)}, expected {[len(names), 3]}")
    panels = [Panel(name, values, names, shades) for name, values in arrays.items()]
    if truth is not None:
        panels += [_mistakes(panels[0], panel, len(panels) > 2) for panel in panels[1:]]
    shaded = is_shaded(shading, len(places))
    return LabelledScan(places, panels, title or "", View(up, turn, tilt), shaded)


def _mistakes(truth: Panel, panel: Panel, several: bool) -> Panel:
    """Where labels are not what they should be."""
    known = truth.label >= 0
    wrong = np.where(known, panel.label != truth.label, -1)
    share = (wrong == 1).sum() / max(known.sum(), 1)
    about = f" of {panel.title}" if several else ""
    title = f"mistakes{about} ({share:.1%} of the points)"
    return Panel(title, wrong, ["right", "mistake"], np.array([RIGHT, WRONG]), True)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _drawn(scan: LabelledScan) -> Picture:
    """The panels side by side, with the legend below, by Matplotlib."""
    screen, depth = project(scan.pos, scan.view)
    low, high = reach(screen, slimmest=0.3)
    count, legend = len(scan.panels), scan.legend
    wide = min(WIDEST / count, 7.0)
    tall = wide * float(np.divide(*(high - low)[::-1]))
    columns = min(len(legend), max(2, int(wide * count / 1.5)))
    above, below = 0.4 + (0.35 if scan.title else 0), 0.15 + 0.22 * -(-len(legend) // columns)
    full_height = above + tall + below
    figure = new_figure(wide * count, full_height)
    if scan.title:
        figure.text(0.5, 1 - 0.1 / full_height, scan.title, ha="center", va="top", fontsize=13)
    images: Any = [None] * count
    if scan.shaded:
        size = round(wide * figure.dpi), round(tall * figure.dpi)
        painted = np.stack([panel.painted for panel in scan.panels])
        images = eye_dome(np.column_stack([screen, depth]), painted, size, low, high)
    drawn = []
    for i, (panel, image) in enumerate(zip(scan.panels, images, strict=True)):
        axes = figure.add_axes((i / count, below / full_height, 1 / count, tall / full_height))
        axes.set_axis_off()
        colour = panel.painted
        if image is None:
            _, colour = paint_cloud(axes, scan.pos, colour, scan.view, fade=0.3)
        else:
            axes.imshow(image, extent=(low[0], high[0], low[1], high[1]), aspect="auto")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        middle, top = (i + 0.5) / count, 1 - (above - 0.1) / full_height
        figure.text(middle, top, panel.title, ha="center", va="bottom", fontsize=11)
        drawn.append(drawn_panel(panel.title, axes, screen, colour))
    _add_legend(figure, legend, columns)
    return Picture(figure, tuple(drawn))


def _add_legend(figure: Any, legend: Mapping[str, np.ndarray], columns: int) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=tuple(colour), label=name) for name, colour in legend.items()]
    square: Any = {"handlelength": 0.8, "handleheight": 0.8, "borderaxespad": 0.2}
    place: Any = {"loc": "lower center", "ncols": columns, "frameon": False, "fontsize": 10}
    figure.legend(handles=handles, **place, **square)


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


def _figure(scan: LabelledScan) -> Any:
    """The panels side by side, by Plotly; a class gets darker to black where there is no light."""
    with installed_by("viz"):
        from plotly import graph_objects as go

    figure = go.Figure()
    count = len(scan.panels)
    pos = scan.pos - scan.pos.mean(axis=0)  # such as lie far from 0 keep their digits
    size = max(2.0, marker_size(len(pos)))
    camera = plotly_camera(pos, scan.view, 1.6 / count**0.6)
    light = under_the_sky(upright(pos, scan.view.up)) if scan.shaded else np.ones(len(pos))
    light = np.rint(255 * light).astype(np.uint8)  # fewer bytes than colours
    for name, colour in scan.legend.items():
        sample = {"color": hex_colours(colour[None])[0]}
        figure.add_trace(dots(go, np.full((1, 3), np.nan), sample, name=name, legendgroup=name))
    for i, panel in enumerate(scan.panels):
        scene = f"scene{i + 1 if i else ''}"
        for k, name, colour in panel.seen:
            points = panel.label == k
            shades = hex_colours(np.stack([0 * colour, colour]))
            marker: dict[str, Any] = {"size": size, "line": {"width": 0}, "cmin": 0, "cmax": 255}
            marker |= {"color": light[points], "colorscale": [[0, shades[0]], [1, shades[1]]]}
            look = {"legendgroup": name, "showlegend": False, "hoverinfo": "name"}
            figure.add_trace(dots(go, pos[points], marker, name=name, scene=scene, **look))
        domain = {"x": [i / count, (i + 1) / count], "y": [0, 1]}
        figure.update_layout({scene: camera | {"domain": domain}})
        place = {"x": (i + 0.5) / count, "y": 1, "xref": "paper", "yref": "paper"}
        figure.add_annotation(place, text=panel.title, showarrow=False, yanchor="bottom")
    figure.update_layout(
        title={"text": scan.title, "x": 0.5, "xanchor": "center"} if scan.title else None,
        template="none",
        margin={"l": 0, "r": 0, "t": 70 if scan.title else 30, "b": 10},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "itemsizing": "constant"},
    )
    return figure
