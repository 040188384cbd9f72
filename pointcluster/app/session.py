"""What one user looks at, and which of its clusters."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pointcluster.app.network import Network
from pointcluster.app.source import Source
from pointcluster.models import PointClusters, PointMLPCoC


class Shown:
    """A picture or a scan in front of a network, with its answers; of one user alone.

    Args:
        network: The network.
        source: What it looks at.
        size: At which size; the one that the network was trained on, if there is no such size.
        up: The axis that points up in a scan; the network's own, if not said.
        progress: Told how far it is, from 0 to 1, and what is done next.

    Raises:
        ImportError, ValueError: As :meth:`Network.prepare`.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        size: int | None = None,
        up: str | None = None,
        *,
        progress: Callable[[float, str], Any] = lambda share, what: None,
    ) -> None:
        self.network, self.source = network, source
        self.size = size if size in network.sizes else network.sizes[0]
        self.up = up or network.up
        progress(0.1, f"Reading {source.name}")
        self.data = network.prepare(source, self.size, up=up or None)
        progress(0.5, f"Classifying by {network.title}")
        self.probabilities = network.classify(self.data)
        self._clusters: dict[tuple[int, int], PointClusters] = {}
        self._folder: Path | None = None

    def again(self) -> Shown:
        """The same for another user, with nothing in common that changes."""
        other = copy.copy(self)
        other._clusters, other._folder = {}, None
        return other

    @property
    def count(self) -> int:
        """Number of points."""
        data: Any = self.data
        return int(data.size(2) * data.size(3) if self.network.kind == "picture" else len(data.pos))

    def clusters(self, place: Place) -> PointClusters:
        """The clusters of a block; those of a block that was looked at before are kept."""
        key = (place.stage, place.block)
        if key not in self._clusters:
            self._clusters[key] = self.network.model.clusters(self.data, *key)
        return self._clusters[key]

    @property
    def folder(self) -> Path:
        """A folder for the files that the user downloads; it goes when this does."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="pointcluster-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


class Place(NamedTuple):
    """One head of one block of one stage, each counted from 0."""

    stage: int = 0
    block: int = 0
    head: int = 0

    def __str__(self) -> str:
        return f"stage {self.stage}, block {self.block}, head {self.head}"


def heads_of(model: Any) -> list[list[int]]:
    """Heads of every block of every stage.

    Args:
        model: A network of :mod:`pointcluster.models`.
    """
    if isinstance(model, PointMLPCoC):  # a group has one centre: all heads are one there
        return [[1] * len(encoder.clusters) for encoder in model.encoders]
    return [[block.cluster.heads for block in blocks] for blocks in model.stages]


def stages(model: Any) -> list[int]:
    """The numbers of the stages."""
    return list(range(len(heads_of(model))))


def blocks(model: Any, stage: int) -> list[int]:
    """The numbers of a stage's blocks."""
    return list(range(len(heads_of(model)[stage])))


def heads(model: Any, stage: int, block: int) -> list[int]:
    """The numbers of a block's heads."""
    return list(range(heads_of(model)[stage][block]))


def nearest_place(model: Any, wanted: Place) -> Place:
    """The place of the network that is next to the one that is asked for, itself if it exists."""
    stage = _within(wanted.stage, stages(model))
    block = _within(wanted.block, blocks(model, stage))
    return Place(stage, block, _within(wanted.head, heads(model, stage, block)))


def first_place(model: Any) -> Place:
    """What is shown at first: the last block of the middle stage, where clusters are neither tiny
    nor few."""
    stage = (len(stages(model)) - 1) // 2
    return Place(stage, blocks(model, stage)[-1], 0)


def _within(value: int | None, there: list[int]) -> int:
    return min(max(int(value or 0), there[0]), there[-1])


class View(NamedTuple):
    """Two places in the network, of which the second is for comparing, and how they look; as the
    fields of the page hold them, so any may be `None`."""

    stage_a: int | None = None
    block_a: int | None = None
    head_a: int | None = None
    stage_b: int | None = None
    block_b: int | None = None
    head_b: int | None = None
    compare: bool = False
    opacity: float | None = 0.6
    """How much of the clusters' colours lies over the points' own, from 0 to 1; 0.6 where the field
    is empty."""
    borders: bool = True
    """Whether regions' borders are shown."""
    centers: bool = True
    """Whether centres are marked."""
    point: str | None = None
    """Number of a point whose cluster stands out, as it was typed."""
    listed: Mapping[str, Sequence[int]] | None = None
    """What the page lets choose at present, by the fields' names; `None`: it is not known."""

    def places(self, network: Network) -> list[Place]:
        """The places that are looked at: one, or two to compare; those of the network next to the
        chosen ones."""
        a = nearest_place(network.model, Place(*(int(v or 0) for v in self[:3])))
        b = nearest_place(network.model, Place(*(int(v or 0) for v in self[3:6])))
        return [a, b] if self.compare else [a]

    def at(self, a: Place, b: Place) -> View:
        """The same of other places."""
        rest: Any = self[6:]
        return View(*a, *b, *rest)


def first_view(network: Network, before: View | None = None) -> View:
    """What is shown of a network at first.

    Of two blocks that are compared the second is the network's last. Colours of a picture let the
    picture shine through; the points of a scan have nothing that could.

    Args:
        network: The network.
        before: Whether blocks are compared, and centres marked, is kept from this.
    """
    stage = stages(network.model)[-1]
    last = Place(stage, blocks(network.model, stage)[-1], 0)
    picture = network.kind == "picture"
    kept = before or View()
    look = View(opacity=0.6 if picture else 1.0, borders=picture, centers=kept.centers)
    return look._replace(compare=kept.compare).at(first_place(network.model), last)
