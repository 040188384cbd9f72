"""What a user has chosen to see of the clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pointcluster.app import choices
from pointcluster.app.choices import Place
from pointcluster.app.look import Look
from pointcluster.app.network import Network


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
    borders: bool = True
    centers: bool = True
    point: str | None = None
    listed: Mapping[str, Sequence[int]] | None = None
    """What the page lets choose at present, by the fields' names; `None`: it is not known."""

    def places(self, network: Network) -> list[Place]:
        """The places that are looked at: one, or two to compare; those of the network next to the
        chosen ones."""
        a = choices.nearest_place(network.model, Place(*(int(v or 0) for v in self[:3])))
        b = choices.nearest_place(network.model, Place(*(int(v or 0) for v in self[3:6])))
        return [a, b] if self.compare else [a]

    def look(self) -> Look:
        """How they look."""
        return Look(self.opacity, self.borders, self.centers, self.point)

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
    stage = choices.stages(network.model)[-1]
    last = Place(stage, choices.blocks(network.model, stage)[-1], 0)
    picture = network.kind == "picture"
    kept = before or View()
    look = View(opacity=0.6 if picture else 1.0, borders=picture, centers=kept.centers)
    return look._replace(compare=kept.compare).at(choices.first_place(network.model), last)
