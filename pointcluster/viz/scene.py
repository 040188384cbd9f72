"""What is to be drawn: clusterings of one picture or cloud, with colours that go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters, place
from pointcluster.viz.borders import contacts, nearest
from pointcluster.viz.camera import UP, in_space
from pointcluster.viz.colours import PALETTE, colour_numbers, match_clusters
from pointcluster.viz.subject import Subject, subject_of

NEUTRAL = 0.8
"""The grey of points that have no colour of their own."""
EMPTY = 0.72
"""The grey of the marks of centres that have no points."""


class Panel(NamedTuple):
    """The clusters of one head."""

    entry: str
    """The title that its clustering was given, such as "stage 1, block 0"."""
    head: str
    """Which head of several it is; empty: there is one."""
    index: np.ndarray  # type: ignore[assignment]
    """Cluster of each point, counted from 0 over those that have points. [n]"""
    center: np.ndarray
    """Number of the centre of each cluster, as the network counts. [m]"""
    colour: np.ndarray
    """Number in the palette of each cluster. [m]"""
    similarity: np.ndarray
    """Similarity of each point to its centre. [n]"""
    region: np.ndarray
    """Region of each point. [n]"""
    center_pos: np.ndarray
    """Where the centres sit, in the subject's positions. [c, D]"""
    center_cluster: np.ndarray
    """Cluster of each centre; -1: it has no points. [c]"""

    @property
    def title(self) -> str:
        """Clustering and head."""
        return ", ".join(filter(None, (self.entry, self.head)))


class Scene(NamedTuple):
    """One picture or cloud, its panels, and how they shall look: see :func:`draw`."""

    subject: Subject
    rows: tuple[tuple[Panel, ...], ...]
    """The panels, those of one clustering in a row."""
    title: str
    opacity: float
    borders: bool
    highlight: int | None
    original: bool
    up: str
    centers: bool = True
    shading: bool | None = None

    @property
    def panels(self) -> list[Panel]:
        """All panels, row by row."""
        return [panel for row in self.rows for panel in row]


def over_time(clusters: Any) -> Sequence[Any]:
    """The steps of a sequence; one clustering or mapping is one step.

    Raises:
        ValueError: The sequence is empty.
    """
    if isinstance(clusters, PointClusters | Mapping | str) or not isinstance(clusters, Sequence):
        return [clusters]
    if not clusters:
        raise ValueError("there are no clusters to draw")
    return clusters


def make_scenes(
    data: Tensor | Data,
    steps: Sequence[Any],
    *,
    head: int | None = None,
    cloud: int = 0,
    opacity: float | None = None,
    borders: bool | None = None,
    highlight: int | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    title: str | None = None,
    original: bool = True,
    up: str = "y",
    **look: Any,
) -> list[Scene]:
    """One scene for each clustering, or mapping of titles to clusterings, in a sequence.

    Colours are stable along the sequence, along a mapping, and from head to head: a cluster takes
    the colour of the one before that it shares most points with, unless one beside it has it. The
    keywords are those of :func:`pointcluster.viz.draw`.

    Raises:
        IndexError, TypeError, ValueError: As :func:`pointcluster.viz.draw`.
    """
    subject = subject_of(data, cloud, mean=mean, std=std)
    picture = subject.is_picture
    opacity = (0.6 if picture else 1.0) if opacity is None else opacity
    if not isinstance(opacity, Real):
        raise TypeError(f"opacity is {opacity!r}, expected a number from 0 to 1")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}, expected 0 to 1")
    if up not in UP:
        raise ValueError(f"up is {up!r}, expected x, y, z, -x, -y or -z")
    if highlight is not None:
        highlight = place("point", highlight, len(subject.pos))
    borders, original = picture if borders is None else borders, original and picture
    plain = Scene(subject, (), title or "", opacity, borders, highlight, original, up, **look)
    touching = contacts(subject.pos, subject.shows)
    scenes: list[Scene] = []
    before: dict[int, Panel] = {}  # of each head
    for step in steps:
        rows = []
        for name, clusters in _entries(step).items():
            row: list[Panel] = []
            for number, label in _heads(name, clusters, head, subject):
                last = before.get(number, row[0] if row else None)
                before[number] = _panel(subject, touching, clusters, number, name, label, last)
                row.append(before[number])
            rows.append(tuple(row))
        scenes.append(plain._replace(rows=tuple(rows)))
    return scenes


def make_scene(data: Tensor | Data, clusters: Any, **options: Any) -> Scene:
    """The scene of one clustering, or of a mapping of titles to clusterings.

    Raises:
        IndexError, TypeError, ValueError: As :func:`pointcluster.viz.draw`.
    """
    return make_scenes(data, [clusters], **options)[0]


def painted(scene: Scene, panel: Panel) -> np.ndarray:
    """The colour of every point, from 0 to 1: its cluster's over its own. [n, 3]

    Where one cluster stands out, the others' are pale.
    """
    subject, opacity = scene.subject, scene.opacity
    own = np.full((len(subject.pos), 3), NEUTRAL) if subject.color is None else subject.color
    out = (1 - opacity) * own + opacity * PALETTE[panel.colour[panel.index]]
    if scene.borders and not subject.is_picture:
        near = panel.region[nearest(subject.pos)]
        out[(near != near[:, :1]).any(axis=1)] *= 0.45
    if scene.highlight is not None:
        other = panel.index != panel.index[scene.highlight]
        white = 0.55 if subject.is_picture else 0.4  # its share
        out[other] = white + (1 - white) * own[other].mean(axis=1, keepdims=True)
    return out


def pixels(scene: Scene, panel: Panel | None = None) -> np.ndarray:
    """A picture as it is, or under a panel's clusters; white where no point is. [H, W, 3]"""
    subject = scene.subject
    shows = subject.shows
    assert shows is not None and subject.color is not None
    colours = subject.color if panel is None else painted(scene, panel)
    out = np.ones((*shows.shape, 3))
    out[shows >= 0] = colours[shows[shows >= 0]]
    return out


def shown_centers(scene: Scene, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Positions [c, D] and colours [c, 3] of the centres; of the highlighted cluster, if any."""
    cluster = panel.center_cluster
    colour = PALETTE[panel.colour[cluster]]
    colour[cluster < 0] = EMPTY
    if scene.highlight is None:
        return panel.center_pos, colour
    chosen = cluster == panel.index[scene.highlight]
    return panel.center_pos[chosen], colour[chosen]


def positions(scene: Scene) -> np.ndarray:
    """Where the points are in space, those of a picture or of a flat cloud in a plane. [n, 3]"""
    return in_space(scene.subject.pos, scene.subject.is_picture)


def _entries(step: Any) -> Mapping[str, PointClusters]:
    """Titles and clusterings; one alone has no title."""
    entries = step if isinstance(step, Mapping) else {"": step}
    for clusters in entries.values():
        if not isinstance(clusters, PointClusters):
            raise TypeError(
                "clusters must be what model.clusters() gives, or a mapping of titles to such, "
                f"found {type(clusters).__name__}"
            )
    if not entries:
        raise ValueError("there are no clusters to draw")
    return {str(name): clusters for name, clusters in entries.items()}


def _heads(
    name: str, clusters: PointClusters, head: int | None, subject: Subject
) -> list[tuple[int, str]]:
    """The heads that are drawn, with what stands above them."""
    of = f" of {name}" if name else ""
    if clusters.index.dim() != 2 or len(clusters.index) != subject.total:
        raise ValueError(
            f"the clusters{of} are of {len(clusters.index)} points, the data has {subject.total}: "
            "they belong to other data"
        )
    count = clusters.index.size(1)
    numbers = range(count) if head is None else [place(f"head{of}", head, count)]
    return [(number, f"head {number}" if count > 1 else "") for number in numbers]


def _panel(
    subject: Subject,
    touching: np.ndarray,
    clusters: PointClusters,
    head: int,
    name: str,
    label: str,
    before: Panel | None,
) -> Panel:
    rows = slice(subject.first, subject.first + len(subject.pos))

    def numbers(values: Tensor) -> np.ndarray:
        return values.detach().cpu().numpy()

    center, index = np.unique(numbers(clusters.index[rows, head]), return_inverse=True)
    wanted = None
    if before is not None:
        match = match_clusters(before.index, index)
        wanted = np.where(match >= 0, before.colour[match], -1)
    region = numbers(clusters.region[rows])
    mine = np.flatnonzero(numbers(clusters.center_batch) == int(clusters.batch[subject.first]))
    pos = numbers(clusters.center_pos.double())[mine]
    if subject.is_picture:
        pos = (pos + 0.5) * (np.array(subject.size) - 1)
    slot = np.searchsorted(center, mine).clip(max=len(center) - 1)
    return Panel(
        entry=name,
        head=label,
        index=index,
        center=center,
        colour=colour_numbers(subject.pos, index, touching, region=region, wanted=wanted),
        similarity=numbers(clusters.similarity[rows, head].double()),
        region=region,
        center_pos=pos,
        center_cluster=np.where(center[slot] == mine, slot, -1),
    )
