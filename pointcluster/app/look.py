"""How clusters are to look, and the scene that is drawn of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from pointcluster.app.choices import Place
from pointcluster.app.point_text import point_number
from pointcluster.app.shown import Shown
from pointcluster.models import PointClusters
from pointcluster.viz.scene import Scene, make_scene


class Look(NamedTuple):
    """The settings that drawing goes by."""

    opacity: float | None = 0.6
    """How much of the clusters' colours lies over the points' own, from 0 to 1; 0.6 where the field
    is empty."""
    borders: bool = True
    """Whether regions' borders are shown."""
    centers: bool = True
    """Whether centres are marked."""
    point: str | int | None = None
    """Number of a point whose cluster stands out, also as it was typed."""


def place_title(place: Place) -> str:
    """A place in words."""
    return f"stage {place.stage}, block {place.block}, head {place.head}"


def one_head(shown: Shown, place: Place) -> PointClusters:
    """The clusters of a block as one head alone has them."""
    found = shown.clusters(place)
    head = slice(place.head, place.head + 1)
    return found._replace(index=found.index[:, head], similarity=found.similarity[:, head])


def drawing(shown: Shown, places: list[Place], look: Look) -> tuple[dict, dict[str, Any]]:
    """What the functions of :mod:`pointcluster.viz` take: clusters by titles, and keywords.

    Of two places with one title, which are the same, one is left.
    """
    options: dict[str, Any] = {
        "head": 0,
        "opacity": 0.6 if look.opacity is None else min(max(float(look.opacity), 0.0), 1.0),
        "borders": bool(look.borders),
        "centers": bool(look.centers),
        "highlight": point_number(shown, look.point),
        **shown.network.draw_options(),
    }
    return {place_title(place): one_head(shown, place) for place in places}, options


def scene_of(shown: Shown, places: list[Place], look: Look) -> Scene:
    """The scene of one or more places; a cluster has the colour of the one that it shares most
    points with in the first."""
    clusters, options = drawing(shown, places, look)
    return make_scene(shown.data, clusters, **options)
