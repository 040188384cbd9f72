"""What there is to say about one point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pointcluster.app.choices import Place
from pointcluster.app.shown import Shown


def point_number(shown: Shown, wanted: str | int | None) -> int | None:
    """The number of a point, as it was typed; `None` where nothing was.

    Raises:
        ValueError: It is no number of a point.
    """
    if wanted is None or not str(wanted).strip():
        return None
    text = str(wanted).strip()
    if not (text.isascii() and text.isdigit()) or int(text[:20]) >= shown.count:
        raise ValueError(f"there is no point {text[:20]}: they go from 0 to {shown.count - 1}")
    return int(text)


def point_text(shown: Shown, place: Place, point: int) -> str:
    """A point's cluster, its similarity and its centre, as Markdown.

    Args:
        shown: What the user looks at.
        place: Which head's clusters.
        point: Number of the point.
    """
    clusters = shown.clusters(place)
    own = clusters.index[:, place.head]
    cluster = int(own[point])
    similarity = float(clusters.similarity[point, place.head])
    size = int((own == cluster).sum())
    centre = position_words(shown, _centre(shown, clusters.center_pos[cluster].tolist()))
    there = position_words(shown, _place(shown, point))
    return (
        f"**Point {point:,}** at {there}  \n"
        f"Cluster **{cluster}**, {size:,} of {shown.count:,} points  \n"
        f"Similarity **{similarity:.3f}**  \n"
        f"Centre at {centre}"
    )


def position_words(shown: Shown, pos: Sequence[float]) -> str:
    """A position in words: x, y and z of a cloud, row and column of a picture."""
    if shown.network.kind == "scan":
        return "(" + ", ".join(f"{value:.2f}" for value in pos) + ")"
    row, column = (f"{round(value, 1):g}" for value in pos)
    return f"row {row}, column {column}"


def _place(shown: Shown, point: int) -> list[float]:
    """Where a point is, in the units of the words."""
    data: Any = shown.data
    if shown.network.kind == "scan":
        found: list[float] = data.pos[point].tolist()
        return found
    return list(divmod(point, data.size(3)))


def _centre(shown: Shown, pos: list[float]) -> list[float]:
    """Where a centre is; networks of pictures count from -0.5 to 0.5, down and right."""
    if shown.network.kind == "scan":
        return pos
    data: Any = shown.data
    return [(each + 0.5) * (side - 1) for each, side in zip(pos, data.shape[2:], strict=True)]
