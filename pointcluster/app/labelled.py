"""A scan whose points a network labels: classes and more as figures, as words, as files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pointcluster._optional import installed_by
from pointcluster.app.network import SceneNetwork
from pointcluster.app.scene import read_scene
from pointcluster.app.session import CLUSTERS, Shown, Side, View
from pointcluster.app.source import SCENES, Source, as_file
from pointcluster.datasets.scan_file import ScanFile
from pointcluster.datasets.write_las import write_las
from pointcluster.models import PointClusters
from pointcluster.segment import FIELD, write_points
from pointcluster.viz import camera, save_labels
from pointcluster.viz.camera import plotly_camera, project
from pointcluster.viz.colours import PALETTE, cluster_colours
from pointcluster.viz.html import hex_colours, write_page
from pointcluster.viz.labels import class_colours

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT, WIDTH = (620, 480), 860
"""Pixels of one figure or two, and of the room that they have side by side."""
EYE = camera.View("z", tilt=35.0)
_HOVER = (
    "point %{customdata[0]}<br>NAME %{customdata[1]:.0%}<br>%{customdata[2]:.1f} m above the ground"
    "<extra></extra>"
)
_DOUBT = "YlOrRd_r"
MANY = 3000
"""Clusters up to which those that touch get different colours; of more, those of one region do."""


class Scale(NamedTuple):
    """Numbers that are drawn as colours."""

    title: str
    values: np.ndarray
    """Of the points that are drawn. [n]"""
    low: float
    high: float
    colours: str
    """A map of matplotlib's; it begins lightly or is lightened, so that shades show."""

    def painted(self, values: np.ndarray) -> np.ndarray:
        """The colours of some values. [n, 3]"""
        with installed_by("app"):
            from matplotlib import colormaps

        shares = (values - self.low) / max(self.high - self.low, 1e-9)
        return 0.15 + 0.85 * colormaps[self.colours](shares.clip(0, 1))[:, :3]

    def marker(self) -> dict[str, Any]:
        """A marker of Plotly's with a bar of the colours."""
        steps = np.linspace(0, 1, 11)
        colours = hex_colours(self.painted(self.low + steps * (self.high - self.low)))
        place = {"orientation": "h", "x": 0.5, "y": 0, "yanchor": "bottom", "len": 0.4}
        return {
            "color": [self.low],
            "colorscale": list(zip(steps.tolist(), colours, strict=True)),
            "cmin": self.low,
            "cmax": self.high,
            "colorbar": place | {"thickness": 10, "tickformat": ".3~g"},
            "size": 0.1,
        }


class Labelled(Shown):
    """A scan with a class at every point.

    Args:
        network: The network.
        source: The scan.
        say: Told how far it is, from 0 to 1, and what is done next.

    Raises:
        ImportError, ValueError: As :func:`~pointcluster.app.scene.read_scene`.
    """

    summary_label = "Classes of all points"
    hint = "Click a point, or type its number, to see what the network says of it."
    network: SceneNetwork

    def __init__(
        self,
        network: SceneNetwork,
        source: Source,
        say: Callable[[float, str], Any] = lambda *told: None,
    ) -> None:
        super().__init__(network, source)
        self.scene = read_scene(network.segmenter, source, say)
        self.count, drawn = len(self.scene.pos), len(self.scene.drawn)
        shares = np.bincount(self.scene.told, minlength=len(network.classes)) / self.count
        order = np.argsort(-shares, kind="stable")
        self.summary = {network.classes[i]: float(shares[i]) for i in order}
        if drawn < self.count:
            self.note = (
                f"{drawn:,} of its {self.count:,} points are drawn, so that it turns smoothly; all "
                "have their classes, here and in the file."
            )
        looks = [name for name in ("height", "intensity", "color") if name in self.scene.looks]
        self.colours = ["class", "probability", "confidence", CLUSTERS, *looks]
        suffix = Path(source.name).suffix.lower()
        self.suffix = suffix if suffix in (*SCENES, ".npy") else ".ply"
        pictures = [(f"Picture ({form})", form) for form in (".png", ".svg", ".pdf")]
        scan = (f"Labelled scan ({self.suffix})", self.suffix)
        self.formats = [scan, *pictures, ("Page (.html)", ".html")]

    def fitted(self, side: Side) -> Side:
        """The same with a colour and a class that there are."""
        classes = self.network.classes
        return side._replace(
            colour=side.colour if side.colour in self.colours else "class",
            kind=side.kind if side.kind in classes else classes[-1],
        )

    def choices(self, side: Side) -> dict[str, list[Any]]:
        """Also what colours can say, and of which class."""
        more = {"colour": self.colours, "kind": list(self.network.classes)}
        return super().choices(side) | more

    def clusters(self, side: Side) -> PointClusters:
        """The clusters of a head for all points."""
        place: Any = side[:3]  # stage, block and head, which are chosen by now
        return self.scene.clusters(self.network.model, *place)

    def figures(self, sides: Sequence[Side], view: View) -> list[Figure]:
        """A figure for each side: points by classes, so that a click in the legend takes one away,
        and in the colours asked for."""
        point = self.point(view.point)
        return [self._figure(self.fitted(side), point, len(sides)) for side in sides]

    def words(self, side: Side, point: int) -> str:
        """Where a point is, its likeliest classes, what was measured, and its cluster."""
        scene, side, names = self.scene, self.fitted(side), self.network.classes
        x, y, z = scene.place(scene.pos[point].astype(float))
        chances = scene.probabilities[point]
        likely = [f"{names[i]} **{chances[i]:.1%}**" for i in np.argsort(-chances)[:3]]
        measured = f"{scene.looks['height'][point]:.1f} m above the ground"
        if "intensity" in scene.looks:
            measured += f", intensity {scene.looks['intensity'][point]:g}"
        where = f"**Point {point:,}** at ({x:,.2f}, {y:,.2f}, {z:,.2f})"
        lines = [where, ", ".join(likely), measured]
        if side.colour == CLUSTERS:
            clusters = self.clusters(side)
            cluster = int(clusters.index[point, 0])
            size = int((clusters.index == cluster).sum())
            lines.append(f"Cluster **{cluster}**, {size:,} of {self.count:,} points")
            lines.append(f"Similarity **{float(clusters.similarity[point, 0]):.3f}**")
        return "  \n".join(lines)

    def code(self, side: Side) -> str:
        """The command that writes the same file."""
        return f"python -m pointcluster.segment MODEL {self.source.name}"

    def save(self, sides: Sequence[Side], view: View, suffix: str) -> Path:
        """Write the scan as it was but for its classes; a picture of these; or the first figure."""
        scene, network, title = self.scene, self.network, self.source.name
        path = self.target("labelled" if suffix == self.suffix else "classes", suffix)
        if suffix == ".html":
            figure = self._figure(self.fitted(sides[0]), self.point(view.point), 1, 1.25)
            return write_page(path, figure.update_layout(height=None), title)
        if suffix != self.suffix:
            pos, told = scene.pos[scene.drawn], scene.told[scene.drawn]
            return save_labels(path, pos, told, classes=network.classes, title=title)
        codes = np.array(network.segmenter.codes, np.uint8)[scene.told]
        with as_file(self.source) as source:
            if suffix in SCENES:
                write_las(source, path, lambda start, end: codes[start:end])
            else:
                write_points(ScanFile(source), path, codes, FIELD)
        return path

    def _painted(self, side: Side, point: int | None) -> np.ndarray | Scale:
        """The colour of every point that is drawn [n, 3], or numbers that become one."""
        scene, rows, names = self.scene, self.scene.drawn, self.network.classes
        if side.colour == "class":
            return class_colours(names)[scene.told[rows]]
        if side.colour == "probability":
            chance = scene.probabilities[rows, names.index(str(side.kind))]
            return Scale(str(side), chance, 0, 1, "YlOrRd")
        if side.colour == "confidence":
            chance = scene.probabilities[rows].max(axis=1)
            return Scale("probability of the likeliest class", chance, 1 / len(names), 1, _DOUBT)
        if side.colour == CLUSTERS:
            return self._cluster_colours(side, point)
        values = scene.looks[str(side.colour)][rows]
        low, high = np.quantile(values, [0.01, 0.98])  # a few stand out by far
        if side.colour == "color":
            return ((values - low) / max(high - low, 1e-9)).clip(0, 1)
        if side.colour == "height":
            return Scale("height above the ground, metres", values, low, high, "YlGnBu")
        return Scale("intensity", values, low, high, "gray")

    def _cluster_colours(self, side: Side, point: int | None) -> np.ndarray:
        """Clusters that touch differ; others are pale where one stands out. [n, 3]"""
        index, rows = self.clusters(side).index[:, 0].numpy(), self.scene.drawn
        if len(np.unique(index[rows])) <= MANY:
            colours = cluster_colours(self.scene.pos[rows].astype(np.float64), index[rows])
        else:
            colours = PALETTE[index[rows] % len(PALETTE)]
        if point is not None:
            other = index[rows] != index[point]
            colours[other] = 0.55 + 0.35 * colours[other].mean(axis=1, keepdims=True)
        return colours

    def _figure(
        self, side: Side, point: int | None, panels: int, wide: float | None = None
    ) -> Figure:
        """One of so many figures, in a frame of so many heights."""
        from plotly import graph_objects as go

        scene, rows, names = self.scene, self.scene.drawn, self.network.classes
        height = HEIGHT[panels - 1]
        wide = wide or WIDTH / panels / height
        middle = scene.pos[rows].mean(axis=0)  # what lies far from 0 keeps its digits
        pos = scene.pos[rows] - middle
        size, figure = _dot(pos, height, wide), go.Figure()

        def dots(where: np.ndarray, marker: dict[str, Any], **told: Any) -> None:
            x, y, z = where.T
            options = {"showlegend": False, "hoverinfo": "skip", "mode": "markers"} | told
            figure.add_trace(go.Scatter3d(x=x, y=y, z=z, marker=marker, **options))

        painted = self._painted(side, point)
        if isinstance(painted, Scale):
            dots(pos[:1], painted.marker())
            title, colours = painted.title, painted.painted(painted.values)
        else:
            title, colours = str(side), painted
        number, few = _few_colours(colours * scene.light[:, None])
        chances = scene.probabilities[rows].max(axis=1)
        told = np.stack([rows, chances, scene.looks["height"][rows]], axis=1).astype(np.float32)
        for kind in np.unique(scene.told[rows]).tolist():
            name, mine = names[kind], scene.told[rows] == kind
            look = few | {"color": number[mine], "size": size, "line": {"width": 0}}
            hover = {"hoverinfo": None, "hovertemplate": _HOVER.replace("NAME", name)}
            dots(pos[mine], look, customdata=told[mine], legendgroup=name, **hover)
            if side.colour == "class":  # the legend's mark is as bright as can be
                colour = hex_colours(class_colours(names)[[kind]])[0]
                entry = {"name": name, "legendgroup": name, "showlegend": True}
                dots(np.full((1, 3), None), {"color": colour}, **entry)
        if point is not None:  # a pin, as the points around it would hide a mark
            foot = scene.pos[point] - middle
            pin = foot + np.array([[0, 0, 0], [0, 0, 0.05 * float(np.ptp(pos, axis=0).max())]])
            mark = {"symbol": "diamond", "color": "white", "line": {"width": 2, "color": "black"}}
            black = {"color": "black", "width": 4}
            dots(pin, mark | {"size": [0, 9]}, mode="lines+markers", line=black)
        legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "bottom"}
        figure.update_layout(
            template="none",
            scene=plotly_camera(pos.astype(np.float64), EYE, wide),
            legend=legend | {"itemsizing": "constant", "font": {"size": 13}},
            hoverlabel={"bgcolor": "white", "font": {"color": "black"}},
        )
        return self.finished(figure, title, height)


def _dot(pos: np.ndarray, height: float, wide: float) -> float:
    """Pixels of a point such that a surface of them has few holes."""
    side = np.ptp(project(pos.astype(np.float64), EYE)[0], axis=0)
    pixels = height * min(1 / max(side[1], 1e-9), wide / max(side[0], 1e-9))
    spacing = pixels * math.sqrt(float(side.prod()) / len(pos))
    return float(np.clip(1.3 * spacing, 1.5, 8))


def _few_colours(colours: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """At most 256 colours that stand for many: which each is, and a marker of Plotly's with them.

    Plotly would read through a name of a colour a point, for seconds.
    """
    with installed_by("app"):
        from PIL import Image

    row = Image.fromarray(np.rint(255 * colours).astype(np.uint8)[None]).quantize(256)
    palette = np.array(row.getpalette()).reshape(-1, 3) / 255
    palette = np.concatenate([palette, palette[-1:]])  # a scale has two ends
    last = len(palette) - 1
    scale = [(i / last, colour) for i, colour in enumerate(hex_colours(palette))]
    return np.asarray(row)[0], {"colorscale": scale, "cmin": 0, "cmax": last}
