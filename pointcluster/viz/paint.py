"""A scene as a picture, drawn with Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pointcluster.viz.borders import border_lines, filled
from pointcluster.viz.cloud_panel import faded, mark, nearness, paint_cloud, project
from pointcluster.viz.figure import new_figure
from pointcluster.viz.palette import PALETTE
from pointcluster.viz.picture import DrawnPanel, Picture
from pointcluster.viz.scene import Panel, Scene, painted, pixels

WIDEST = 14.0
"""Inches that a picture is wide at most, unless its panels would become too small."""
EMPTY = 0.72
"""The grey of the marks of centres that have no points."""


class Cell(NamedTuple):
    """What stands at one place of the grid of panels."""

    row: int
    column: int
    panel: Panel | None
    """`None`: the picture itself."""
    above: str
    beside: str


PointRenderer = Callable[
    [np.ndarray, np.ndarray, tuple[int, int], np.ndarray, np.ndarray], np.ndarray
]
"""Draws points: places on the screen and nearness, colours of each panel, size in pixels, what the
panels reach from and to; answers with a picture of each panel."""


def paint(
    scene: Scene,
    *,
    turn: float = 35.0,
    tilt: float = 20.0,
    fit: bool = True,
    widest: int = 0,
    points: PointRenderer | None = None,
) -> Picture:
    """Draw a scene.

    Args:
        scene: What is drawn.
        turn: Degrees about the up axis from which a cloud is looked at.
        tilt: Degrees from above.
        fit: Make the panels of a cloud as wide and tall as it appears; otherwise they hold it from
            wherever it is looked at.
        widest: Pixels that the picture is wide at most; 0: as they come.
        points: What draws the points of a cloud, instead of Matplotlib.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    cells = layout(scene)
    rows, columns = max(c.row for c in cells) + 1, max(c.column for c in cells) + 1
    side = float(np.clip(WIDEST / columns, 1.35, 3.2))
    low, high = _frame(scene, turn, tilt, fit)
    width, height = high - low
    tall, wide = (side * each / max(height, width) for each in (height, width))
    tall, wide = max(tall, 0.3), max(wide, 0.6)
    short = min(width, height) * min(wide / width, tall / height)  # of what is drawn, in inches
    gap = 0.08 if side < 2 else 0.12
    small = 9.5 if side > 2 else 8.0
    cells = [c._replace(above=broken(c.above, wide + gap, small)) for c in cells]
    lines = [max(len(c.above.splitlines()) for c in cells if c.row == r) for r in range(rows)]
    above = [0.1 + 0.0165 * small * each if each else 0.0 for each in lines]
    longest = max(_inches(c.beside, small) for c in cells)
    lying = longest > tall  # titles beside the rows stand where the rows are tall enough
    left = 0.08 if not longest else longest + 0.16 if lying else 0.32
    top = 0.36 if scene.title else 0.06
    full_width = left + columns * wide + (columns - 1) * gap + 0.08
    full_height = top + sum(above) + rows * tall + (rows - 1) * gap + 0.08
    figure = new_figure(full_width, full_height)
    if widest:
        figure.set_dpi(min(figure.dpi, widest / full_width))
    if scene.title:
        figure.text(0.5, 1 - 0.12 / full_height, scene.title, ha="center", va="top", fontsize=12)
    drawn: list[tuple[str, Any, np.ndarray, np.ndarray]] = []
    rendered = None
    if points is not None:
        screen, depth = project(scene.subject.pos, turn=turn, tilt=tilt, up=scene.up)
        near = nearness(depth)
        colours = np.stack([faded(painted(scene, each), near) for each in scene.panels])
        size = round(wide * figure.dpi), round(tall * figure.dpi)
        rendered = points(np.concatenate([screen, depth[:, None]], 1), colours, size, low, high)
    for cell in cells:
        x = left + cell.column * (wide + gap)
        y = top + sum(above[: cell.row + 1]) + cell.row * (tall + gap)
        place = (
            x / full_width,
            1 - (y + tall) / full_height,
            wide / full_width,
            tall / full_height,
        )
        axes = figure.add_axes(place)
        axes.set_axis_off()
        if cell.above:
            figure.text(
                (x + wide / 2) / full_width, 1 - (y - 0.06) / full_height, cell.above,
                ha="center", va="bottom", fontsize=small,
            )  # fmt: skip
        if cell.beside:
            figure.text(
                (left - 0.08) / full_width, 1 - (y + tall / 2) / full_height, cell.beside,
                ha="right", va="center", rotation=0 if lying else 90, fontsize=small,
            )  # fmt: skip
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        image = None if rendered is None else rendered[len(drawn)]
        where, colour = _fill(axes, scene, cell.panel, short, turn, tilt, image)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        if scene.subject.is_picture:
            axes.invert_yaxis()
        if cell.panel is not None:
            drawn.append((cell.panel.title, axes, where, colour))
    canvas = figure.canvas
    pixels_high = canvas.get_width_height()[1]
    panels = []
    for title, axes, where, colour in drawn:
        axes.apply_aspect()
        found = axes.transData.transform(where)
        box = axes.get_window_extent()
        at = np.stack([pixels_high - found[:, 1], found[:, 0]], axis=1)
        edges = (pixels_high - box.y1, pixels_high - box.y0, box.x0, box.x1)
        panels.append(DrawnPanel(title, at, colour, edges))
    return Picture(figure, tuple(panels))


def broken(text: str, width: float, size: float) -> str:
    """Break a title after commas and at spaces where it would be wider than so many inches."""
    lines: list[str] = []
    for part in text.split(", "):
        for word in [part] if _inches(part, size) <= width else part.split():
            joint = ", " if word == part or part.startswith(word) else " "
            if lines and _inches(lines[-1] + joint + word, size) <= width:
                lines[-1] += joint + word
            else:
                lines.append(word)
    return "\n".join(lines)


def _inches(text: str, size: float) -> float:
    """About how long a text is, a little more than most."""
    return 0.0083 * size * len(text)


def _frame(scene: Scene, turn: float, tilt: float, fit: bool) -> tuple[np.ndarray, np.ndarray]:
    """What a panel reaches from and to, along both axes."""
    if scene.subject.is_picture:
        height, width = scene.subject.size
        return np.array([-0.5, -0.5]), np.array([width - 0.5, height - 0.5])
    if not fit:
        return np.full(2, -1.05), np.full(2, 1.05)
    screen, _ = project(scene.subject.pos, turn=turn, tilt=tilt, up=scene.up)
    low, high = screen.min(axis=0), screen.max(axis=0)
    room = np.maximum(0.05, 0.5 * (0.6 * (high - low).max() - (high - low)))  # no thin strips
    return low - room, high + room


def layout(scene: Scene) -> list[Cell]:
    """Where the panels go: one clustering a row, or one after the other where each has one panel.

    The picture itself, where it is shown, comes first.
    """
    first = 1 if scene.original else 0
    cells = [Cell(0, 0, None, "the picture", "")] if first else []
    if len(scene.rows) > 1 and max(map(len, scene.rows)) > 1:
        longest = 0
        for r, row in enumerate(scene.rows):
            for c, panel in enumerate(row):
                head = panel.head if c >= longest else ""
                cells.append(Cell(r, first + c, panel, head, panel.entry if not c else ""))
            longest = max(longest, len(row))
        return cells
    number = first + len(scene.panels)
    columns = number if number <= 5 else min(8, math.ceil(math.sqrt(1.8 * number)))
    columns = math.ceil(number / math.ceil(number / columns))  # rows of equal length
    for i, panel in enumerate(scene.panels, first):
        cells.append(Cell(*divmod(i, columns), panel, panel.title, ""))
    return cells


def _fill(
    axes: Any,
    scene: Scene,
    panel: Panel | None,
    side: float,
    turn: float,
    tilt: float,
    rendered: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one panel; where in the axes its points are, and in which colours."""
    subject = scene.subject
    if subject.is_picture:
        axes.imshow(pixels(scene, panel), interpolation="nearest", aspect="auto")
        if panel is not None:
            _annotate(axes, scene, panel, side)
        colour = subject.color if panel is None else painted(scene, panel)
        assert colour is not None
        return subject.pos[:, ::-1], colour
    assert panel is not None  # only pictures are shown themselves
    chosen = scene.highlight
    front = None if chosen is None else panel.index == panel.index[chosen]
    centers = shown_centers(scene, panel) if scene.centers else None
    where, colour = paint_cloud(
        axes, subject.pos, painted(scene, panel), rendered=rendered, turn=turn, tilt=tilt,
        up=scene.up, front=front, marks=centers,
    )  # fmt: skip
    if chosen is not None:
        _star(axes, where[chosen], side)
    return where, colour


def _annotate(axes: Any, scene: Scene, panel: Panel, side: float) -> None:
    """Borders of regions, centres and the chosen point of a picture."""
    from matplotlib.collections import LineCollection

    subject = scene.subject
    shrunk = _shrunk(side)
    thin = shrunk * (0.5 if side < 2 else 0.8)
    thick = shrunk + thin
    if scene.borders:
        label = filled(subject.shows, panel.region)
        lines = border_lines(label)
        axes.add_collection(LineCollection(lines, colors="0.1", linewidths=thick, zorder=2))
        axes.add_collection(LineCollection(lines, colors="white", linewidths=thin, zorder=3))
    if scene.highlight is not None:
        index = filled(subject.shows, panel.index)
        outline = border_lines(index == panel.index[scene.highlight])
        axes.add_collection(
            LineCollection(outline, colors="black", linewidths=1.2 * shrunk, zorder=3)
        )
    if scene.centers:
        pos, colour = shown_centers(scene, panel)
        room = (72 * side) ** 2 / max(1, len(panel.center_pos))
        mark(axes, pos[:, ::-1], colour, shrunk**2 * float(np.clip(0.02 * room, 2.0, 30)))
    if scene.highlight is not None:
        _star(axes, subject.pos[scene.highlight, ::-1], side)


def _star(axes: Any, where: np.ndarray, side: float) -> None:
    """The chosen point."""
    shrunk = _shrunk(side)
    axes.scatter(
        *where, marker="*", s=40 * side * shrunk, c="white", edgecolors="black",
        linewidths=0.9 * shrunk, zorder=5,
    )  # fmt: skip


def _shrunk(side: float) -> float:
    """How thin lines become in a very narrow panel, which they would hide, of so many inches."""
    return min(1.0, side / 0.5)


def shown_centers(scene: Scene, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours of the centres; of the highlighted cluster alone where there is one.

    Shapes and units:
        ``[c, D]`` and ``[c, 3]``
    """
    cluster = panel.center_cluster
    colour = PALETTE[panel.colour[cluster]]
    colour[cluster < 0] = EMPTY
    if scene.highlight is None:
        return panel.center_pos, colour
    own = cluster == panel.index[scene.highlight]
    return panel.center_pos[own], colour[own]
