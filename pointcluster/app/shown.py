"""What one user looks at."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pointcluster.app.choices import Place
from pointcluster.app.network import Network
from pointcluster.app.source import Source
from pointcluster.models import PointClusters


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
