"""A picture or a scan that a network classifies: its clusters as figures, as words, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcluster.app.network import Classifier
from pointcluster.app.session import Shown, Side, View
from pointcluster.app.source import Source
from pointcluster.models import PointClusters
from pointcluster.viz import save
from pointcluster.viz.html import figure_of
from pointcluster.viz.scene import Panel, make_scene

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 480
_HOVER = (
    "point %{customdata[0]}<br>cluster %{customdata[1]}<br>similarity %{customdata[2]:.3f}<br>"
    "centre at %{text}<extra></extra>"
)


class Classified(Shown):
    """A picture or a scan of one thing.

    Args:
        network: The network.
        source: What it looks at.
        size: At which size; the one that the network was trained on, if there is no such size.
        up: The axis that points up in a scan; the network's own, if not said.
        say: Told how far it is, from 0 to 1, and what is done next.

    Raises:
        ImportError, ValueError: As :meth:`Classifier.prepare`.
    """

    formats = tuple((suffix, suffix) for suffix in (".png", ".svg", ".pdf", ".html", ".ply"))
    summary_label = "What the network takes it for"
    network: Classifier

    def __init__(
        self,
        network: Classifier,
        source: Source,
        size: int | None = None,
        up: str | None = None,
        say: Callable[[float, str], Any] = lambda *told: None,
    ) -> None:
        super().__init__(network, source)
        self.size = size if size in network.sizes else network.sizes[0]
        self.up = up or network.up
        self.is_picture = network.kind == "picture"
        say(0.1, f"Reading {source.name}")
        self.data: Any = network.prepare(source, self.size, up=up or None)
        say(0.5, f"Classifying by {network.title}")
        self.summary = network.classify(self.data)
        self.count = self.data[0, 0].numel() if self.is_picture else len(self.data.pos)
        self._clusters: dict[tuple[Any, Any], PointClusters] = {}

    def again(self) -> Shown:
        other: Any = super().again()
        other._clusters = {}
        return other

    def clusters(self, side: Side) -> PointClusters:
        """The clusters of a head; those of a block that was looked at before are kept."""
        key = (side.stage, side.block)
        if key not in self._clusters:
            self._clusters[key] = self.network.model.clusters(self.data, *key)
        return self._clusters[key].of_head(side.head)

    def figures(self, sides: Sequence[Side], view: View) -> list[Figure]:
        """A figure for each side, with colours that go together.

        Hovering over a point tells its number, its cluster, its similarity to the centre and where
        this is; `customdata` holds these numbers, too.
        """
        clusters, options = self._drawing(sides, view)
        scene = make_scene(self.data, clusters, **options)
        made = {}
        for panel in scene.panels:
            alone = scene._replace(rows=((panel,),), original=False)
            figure = figure_of([alone], wide=1.0 if len(sides) > 1 else 1.5)
            self._let_answer(figure, panel)
            made[panel.entry] = self.finished(figure, panel.entry, HEIGHT)
        return [made[str(side)] for side in sides]

    def words(self, side: Side, point: int) -> str:
        """A point's cluster, its similarity and its centre."""
        clusters = self.clusters(side)
        cluster = int(clusters.index[point, 0])
        size = int((clusters.index == cluster).sum())
        there = clusters.center_pos[cluster].double()
        if self.is_picture:
            here: Sequence[float] = divmod(point, self.data.size(3))
            # Networks of pictures count from -0.5 to 0.5, down and right.
            there = (there + 0.5) * (there.new_tensor(self.data.shape[2:]) - 1)
        else:
            here = self.data.pos[point].tolist()
        return (
            f"**Point {point:,}** at {self._position(here)}  \n"
            f"Cluster **{cluster}**, {size:,} of {self.count:,} points  \n"
            f"Similarity **{float(clusters.similarity[point, 0]):.3f}**  \n"
            f"Centre at {self._position(there.tolist())}"
        )

    def code(self, side: Side) -> str:
        """The method of the network that gives the clusters."""
        return f"model.clusters(data, stage={side.stage}, block={side.block}, head={side.head})"

    def save(self, sides: Sequence[Side], view: View, suffix: str) -> Path:
        """Write what is shown; points in three dimensions are those of the first side alone."""
        stage, block, head, *_ = sides[0]
        path = self.target(f"stage{stage}-block{block}-head{head}", suffix)
        clusters, options = self._drawing(sides[:1] if suffix == ".ply" else sides, view)
        return save(path, self.data, clusters, **options)

    def _drawing(self, sides: Sequence[Side], view: View) -> tuple[dict, dict[str, Any]]:
        """What the functions of :mod:`pointcluster.viz` take: clusters by titles, and keywords.

        Of two sides with one title, which are the same, one is left.
        """
        options: dict[str, Any] = {
            "head": 0,
            "opacity": 0.6 if view.opacity is None else min(max(float(view.opacity), 0.0), 1.0),
            "borders": bool(view.borders),
            "centers": bool(view.centers),
            "highlight": self.point(view.point),
            **self.network.draw_options(),
        }
        return {str(side): self.clusters(side) for side in sides}, options

    def _position(self, pos: Sequence[float]) -> str:
        """A position in words: x, y and z of a cloud, row and column of a picture."""
        if not self.is_picture:
            return "(" + ", ".join(f"{value:.2f}" for value in pos) + ")"
        row, column = (f"{round(value, 1):g}" for value in pos)
        return f"row {row}, column {column}"

    def _let_answer(self, figure: Figure, panel: Panel) -> None:
        """Let every point of a figure tell about itself."""
        number = np.arange(len(panel.index))
        told: Any = [number, panel.center[panel.index], panel.similarity]
        told = np.stack(told, axis=1).astype(np.float32)
        where = np.zeros((len(panel.center), panel.center_pos.shape[1]))
        used = panel.center_cluster >= 0
        where[panel.center_cluster[used]] = panel.center_pos[used]
        words = np.array([self._position(each) for each in where.tolist()])[panel.index]
        for trace in figure.data:
            if trace.type == "heatmap":  # one for all pixels
                shape = self.data.shape[2:]
                told, words = told.reshape(*shape, 3), words.reshape(shape)
            elif trace.hoverinfo == "skip" or trace.type == "image":
                continue
            trace.update(customdata=told, text=words, hovertemplate=_HOVER)
