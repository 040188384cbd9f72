"""What one user looks at, and how."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pointcluster.app.network import Network
from pointcluster.app.source import Source

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CLUSTERS = "clusters"


class Side(NamedTuple):
    """What one of two figures shows; as the fields of the page hold them, any may be `None`."""

    stage: int | None = 0
    block: int | None = 0
    head: int | None = 0
    colour: str | None = None
    """Of a scene, what the points' colours say: :data:`CLUSTERS`, the class, ..."""
    kind: str | None = None
    """The class whose probability they say."""

    def __str__(self) -> str:
        if self.colour in (None, CLUSTERS):
            return f"stage {self.stage}, block {self.block}, head {self.head}"
        return f"probability of {self.kind}" if self.colour == "probability" else str(self.colour)


class View(NamedTuple):
    """Two figures, of which the second is for comparing, and how they look; as the page's fields
    hold them."""

    stage_a: int | None = None
    block_a: int | None = None
    head_a: int | None = None
    colour_a: str | None = None
    kind_a: str | None = None
    stage_b: int | None = None
    block_b: int | None = None
    head_b: int | None = None
    colour_b: str | None = None
    kind_b: str | None = None
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
    listed: Mapping[str, Sequence[Any]] | None = None
    """What the page lets choose at present, by the fields' names; `None`: it is not known."""

    def sides(self, network: Network) -> tuple[Side, Side]:
        """Both, at the places of the network that are next to the chosen ones."""
        fields: Any = self
        count = len(Side._fields)
        first, second = Side(*fields[:count]), Side(*fields[count : 2 * count])
        return nearest_side(network, first), nearest_side(network, second)

    def of(self, first: Side, second: Side) -> View:
        """The same of other sides."""
        rest: Any = self[2 * len(Side._fields) :]
        return View(*first, *second, *rest)


def nearest_side(network: Network, wanted: Side) -> Side:
    """The same with the stage, block and head that are next to those asked for."""

    def within(value: int | None, count: int) -> int:
        return min(max(int(value or 0), 0), count - 1)

    stage = within(wanted.stage, len(network.heads))
    block = within(wanted.block, len(network.heads[stage]))
    head = within(wanted.head, network.heads[stage][block])
    return wanted._replace(stage=stage, block=block, head=head)


def first_view(network: Network, before: View | None = None) -> View:
    """What is shown of a network at first; whether figures are compared is as before.

    That is the last block of the middle stage, where clusters are neither tiny nor few, and to
    compare with, the network's last; of a scene the classes, and beside them clusters. Colours of a
    picture let the picture shine through; the points of a scan have nothing that could.
    """
    last = len(network.heads) - 1
    first, second = (Side(stage, len(network.heads[stage]) - 1) for stage in (last // 2, last))
    if network.kind == "scene":
        first, second = first._replace(colour="class"), first._replace(colour=CLUSTERS)
    picture, kept = network.kind == "picture", before or View()
    look = View(opacity=0.6 if picture else 1.0, borders=picture, centers=kept.centers)
    return look._replace(compare=kept.compare).of(first, second)


class Shown(ABC):
    """A picture or a scan in front of a network, with its answers; of one user alone."""

    formats: Sequence[tuple[str, str]]
    """What can be downloaded: in words, and the suffix."""
    summary: dict[str, float]
    """Shares of classes, the largest first."""
    summary_label: str
    hint: str = "Click a point, or type its number, and its cluster stands out."
    note: str = ""
    """What must be said of the input."""
    size: int | None = None
    up: str = ""
    count: int
    """Number of points."""

    def __init__(self, network: Network, source: Source) -> None:
        self.network, self.source = network, source
        self._folder: Path | None = None

    def again(self) -> Shown:
        """The same for another user, with nothing in common that changes."""
        other = copy.copy(self)
        other._folder = None
        return other

    @property
    def folder(self) -> Path:
        """A folder for the files that the user downloads; it goes when this does."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="pointcluster-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def target(self, what: str, suffix: str) -> Path:
        """Where a download is written, under a name that says what it is.

        Raises:
            ValueError: There is no such format.
        """
        if suffix not in (there := [known for _, known in self.formats]):
            raise ValueError(f"the format is {suffix!r}, expected one of {' '.join(there)}")
        stem = "".join(c if c.isalnum() else "-" for c in Path(self.source.name).stem).strip("-")
        return self.folder / f"{stem or 'clusters'}-{what}{suffix}"

    def point(self, wanted: str | int | None) -> int | None:
        """The number of a point, as it was typed; `None` where nothing was.

        Raises:
            ValueError: It is no number of a point.
        """
        if wanted is None or not (text := str(wanted).strip()):
            return None
        if not (text.isascii() and text.isdigit()) or int(text[:20]) >= self.count:
            raise ValueError(f"there is no point {text[:20]}: they go from 0 to {self.count - 1}")
        return int(text)

    def fitted(self, side: Side) -> Side:
        """The same with what there is to choose of colours."""
        return side._replace(colour=None, kind=None)

    def choices(self, side: Side) -> dict[str, list[Any]]:
        """What there is to choose: the stages, the blocks of the stage, the heads of the block."""
        heads, stage, block = self.network.heads, side.stage or 0, side.block or 0
        counts = {"stage": len(heads), "block": len(heads[stage]), "head": heads[stage][block]}
        return {name: list(range(count)) for name, count in counts.items()}

    def finished(self, figure: Figure, title: str, height: int) -> Figure:
        """A figure as the page shows it: the same input keeps the view that the user turned to."""
        unused = [
            "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "tableRotation",
            "resetCameraLastSave3d", "zoom3d", "pan3d", "orbitRotation",
        ]  # fmt: skip
        return figure.update_layout(
            height=height,
            margin={"l": 0, "r": 0, "t": 36, "b": 4},
            title={"text": title, "x": 0.015, "y": 0.985, "yanchor": "top", "font": {"size": 14}},
            modebar={"remove": unused},
            uirevision=f"{self.source.name} {self.size} {self.up} {self.network.title}",
        )

    @abstractmethod
    def figures(self, sides: Sequence[Side], view: View) -> list[Figure]:
        """A figure for each side, with colours that go together."""

    @abstractmethod
    def words(self, side: Side, point: int) -> str:
        """What there is to say of a point, as Markdown."""

    @abstractmethod
    def code(self, side: Side) -> str:
        """How to have the same without the page."""

    @abstractmethod
    def save(self, sides: Sequence[Side], view: View, suffix: str) -> Path:
        """Write a file to download.

        Raises:
            ImportError, OSError, ValueError: It cannot be written, or there is no such format.
        """
