"""A scene as a picture, drawn with Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pointcluster.viz.borders import border_lines, filled
from pointcluster.viz.camera import View, nearness, project, reach, reach_of_turns
from pointcluster.viz.picture import DrawnPanel, Picture, drawn_panel, new_figure
from pointcluster.viz.scene import Panel, Scene, painted, pixels, shown_centers
from pointcluster.viz.shading import eye_dome, is_shaded

WIDEST = 14.0
"""Inches that a picture is wide at most, unless its panels would become too small."""

PointRenderer = Callable[
    [np.ndarray, np.ndarray, tuple[int, int], np.ndarray, np.ndarray], np.ndarray
]
"""Draws points: places on the screen and nearness, colours of each panel, size in pixels, what the
panels reach from and to; answers with a picture of each panel."""


class Cell(NamedTuple):
    """What stands at one place of the grid of panels."""

    row: int
    column: int
    panel: Panel | None
    """`None`: the picture itself."""
    above: str
    beside: str


def paint(
    scene: Scene,
    *,
    turn: float | None = None,
    widest: int = 0,
    points: PointRenderer | None = None,
) -> Picture:
    """Draw a scene.

    Args:
        scene: What is drawn.
        turn: Degrees about the up axis of a cloud that turns: panels hold it from wherever it is
            looked at. By default it is seen from the front right, and panels fit what is seen.
        widest: Pixels that the picture is wide at most; 0: as they come.
        points: What draws the points of a cloud, instead of what the scene says.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    subject = scene.subject
    view = View(scene.up) if turn is None else View(scene.up, turn)
    if subject.is_picture:
        height, width = subject.size
        low, high = np.array([-0.5, -0.5]), np.array([width - 0.5, height - 0.5])
    elif turn is None:
        low, high = reach(project(subject.pos, view)[0])
    else:
        low, high = reach_of_turns(subject.pos, view)

    # The grid, in inches from its upper left corner.
    cells = layout(scene)
    rows, columns = max(c.row for c in cells) + 1, max(c.column for c in cells) + 1
    side = float(np.clip(WIDEST / columns, 1.35, 3.2))
    width, height = high - low
    scale = side / max(height, width)
    tall, wide = max(scale * height, 0.3), max(scale * width, 0.6)
    short = min(width, height) * min(wide / width, tall / height)  # of what is drawn
    gap = 0.08 if side < 2 else 0.12
    small = 9.5 if side > 2 else 8.0
    cells = [c._replace(above=broken(c.above, wide + gap, small)) for c in cells]
    lines = [max(len(c.above.splitlines()) for c in cells if c.row == r) for r in range(rows)]
    above = [0.1 + 0.0165 * small * count if count else 0.0 for count in lines]
    longest = max(_inches(c.beside, small) for c in cells)
    lying = longest > tall  # titles beside the rows stand where the rows are tall enough
    left = 0.08 if not longest else longest + 0.16 if lying else 0.32
    top = 0.36 if scene.title else 0.06
    full_width = left + columns * wide + (columns - 1) * gap + 0.08
    full_height = top + sum(above) + rows * tall + (rows - 1) * gap + 0.08
    figure = new_figure(full_width, full_height)
    if widest:
        figure.set_dpi(min(figure.dpi, widest / full_width))

    def write(x: float, y: float, text: str, **look: Any) -> None:
        figure.text(x / full_width, 1 - y / full_height, text, **look)

    if scene.title:
        write(full_width / 2, 0.12, scene.title, ha="center", va="top", fontsize=12)
    images: Any = [None] * len(cells)
    if not subject.is_picture:
        size = round(wide * figure.dpi), round(tall * figure.dpi)
        images = _images(scene, view, size, low, high, points) or images
    drawn: list[DrawnPanel] = []
    for cell, image in zip(cells, images, strict=True):
        x = left + cell.column * (wide + gap)
        y = top + sum(above[: cell.row + 1]) + cell.row * (tall + gap)
        corner = x / full_width, 1 - (y + tall) / full_height
        axes = figure.add_axes((*corner, wide / full_width, tall / full_height))
        axes.set_axis_off()
        if cell.above:
            write(x + wide / 2, y - 0.06, cell.above, ha="center", va="bottom", fontsize=small)
        if cell.beside:
            turned: Any = {"ha": "right", "va": "center", "rotation": 0 if lying else 90}
            write(left - 0.08, y + tall / 2, cell.beside, fontsize=small, **turned)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if cell.panel is None:
            axes.imshow(pixels(scene), interpolation="nearest", aspect="auto")
        elif subject.is_picture:
            where, colour = _fill_picture(axes, scene, cell.panel, short)
        else:
            where, colour = _fill_cloud(axes, scene, cell.panel, short, view, image)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        if subject.is_picture:
            axes.invert_yaxis()
        if cell.panel is not None:
            drawn.append(drawn_panel(cell.panel.title, axes, where, colour))
    return Picture(figure, tuple(drawn))


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


def paint_cloud(
    axes: Any,
    pos: np.ndarray,
    colour: np.ndarray,
    view: View,
    *,
    front: np.ndarray | None = None,
    fade: float = 0.65,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the points of a cloud as dots; those farther from the eye are paler and smaller.

    Args:
        axes: Matplotlib's axes.
        pos: Positions ``[P, 3]`` or ``[P, 2]``.
        colour: Of each point, from 0 to 1 ``[P, 3]``.
        view: From where it is seen.
        front: Points that are drawn last and large, boolean ``[P]``.
        fade: How much paler the farthest are.

    Returns:
        Where in the axes the points are drawn ``[P, 2]``, and in which colours ``[P, 3]``.
    """
    screen, depth = project(pos, view)
    near = nearness(depth)
    colour = _faded(colour, near, fade)
    size = float(np.clip(9000 / len(pos), 0.5, 20)) * (0.6 + 0.6 * near)
    order = np.argsort(depth, kind="stable")  # the front is drawn last
    if front is not None:
        size = np.where(front, 1.8 * size, size)
        order = order[np.argsort(front[order], kind="stable")]
    look = {"c": colour[order], "s": size[order], "linewidths": 0}
    axes.scatter(*screen[order].T, **look, rasterized=len(pos) > 5000)
    return screen, colour


def _faded(colour: np.ndarray, near: np.ndarray, fade: float = 0.65) -> np.ndarray:
    """Colours that are paler at the back. [P, 3]"""
    return 1 - (1 - colour) * (1 - fade * (1 - near[:, None]))


def _inches(text: str, size: float) -> float:
    """About how long a text is, a little more than most."""
    return 0.0083 * size * len(text)


def _images(
    scene: Scene,
    view: View,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
    points: PointRenderer | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A picture of the points of each panel, with the colours in it; none: they become dots."""
    pos = scene.subject.pos
    shaded = points is None and is_shaded(scene.shading, len(pos))
    if points is None and not shaded:
        return []
    screen, depth = project(pos, view)
    colours = np.stack([painted(scene, panel) for panel in scene.panels])
    if not shaded:  # which shows depth by itself
        colours = np.stack([_faded(panel, nearness(depth)) for panel in colours])
    render = points or eye_dome
    images = render(np.column_stack([screen, depth]), colours, size, low, high)
    return list(zip(images, colours, strict=True))


def _fill_picture(
    axes: Any, scene: Scene, panel: Panel, side: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture under its clusters; where in the axes its points are, and in which colours.

    Lines and marks are thin in a narrow panel, of which a `side` has so many inches.
    """
    from matplotlib.collections import LineCollection

    subject, chosen = scene.subject, scene.highlight
    axes.imshow(pixels(scene, panel), interpolation="nearest", aspect="auto")
    shrunk = _shrunk(side)

    def outline(label: np.ndarray, colour: str, width: float, zorder: int) -> None:
        lines = border_lines(label)
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=zorder))

    if scene.borders:
        region, thin = filled(subject.shows, panel.region), shrunk * (0.5 if side < 2 else 0.8)
        outline(region, "0.1", shrunk + thin, 2)
        outline(region, "white", thin, 3)
    if chosen is not None:
        index = filled(subject.shows, panel.index)
        outline(index == panel.index[chosen], "black", 1.2 * shrunk, 3)
    if scene.centers:
        pos, colour = shown_centers(scene, panel)
        room = (72 * side) ** 2 / max(1, len(panel.center_pos))
        _mark(axes, pos[:, ::-1], colour, shrunk**2 * float(np.clip(0.02 * room, 2.0, 30)))
    if chosen is not None:
        _star(axes, subject.pos[chosen, ::-1], side)
    return subject.pos[:, ::-1], painted(scene, panel)


def _fill_cloud(
    axes: Any,
    scene: Scene,
    panel: Panel,
    side: float,
    view: View,
    image: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the clusters of a cloud, as :func:`_fill_picture`; what :func:`_images` gave of it."""
    pos, chosen = scene.subject.pos, scene.highlight
    if image is None:
        front = None if chosen is None else panel.index == panel.index[chosen]
        _, colour = paint_cloud(axes, pos, painted(scene, panel), view, front=front)
    else:
        drawn, colour = image
        axes.imshow(drawn, extent=(*axes.get_xlim(), *axes.get_ylim()), aspect="auto")
    where, depth = project(pos, view)
    centers, center_colour = shown_centers(scene, panel)
    if scene.centers and len(centers):
        at, center_depth = project(centers, view, frame=pos)
        seen = center_depth >= (depth.min() + depth.max()) / 2  # not those on the far side
        size = float(np.clip(1000 / len(centers), 4, 25))
        _mark(axes, at[seen], center_colour[seen], size)
    if chosen is not None:
        _star(axes, where[chosen], side)
    return where, colour


def _mark(axes: Any, where: np.ndarray, colour: np.ndarray, size: float) -> None:
    """Rings that show on any ground, dark around white around the colour, of `size` points²."""
    axes.scatter(*where.T, s=2.6 * size, c="0.15", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=2.0 * size, c="white", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=0.8 * size, c=colour, linewidths=0, zorder=4)


def _star(axes: Any, where: np.ndarray, side: float) -> None:
    """The chosen point."""
    shrunk = _shrunk(side)
    look = {"c": "white", "edgecolors": "black", "linewidths": 0.9 * shrunk}
    axes.scatter(*where, marker="*", s=40 * side * shrunk, zorder=5, **look)


def _shrunk(side: float) -> float:
    """How thin lines become in a very narrow panel, which they would hide, of so many inches."""
    return min(1.0, side / 0.5)
