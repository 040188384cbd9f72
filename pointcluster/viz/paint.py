"""A scene as a picture, drawn with Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pointcluster.viz.borders import border_lines, filled
from pointcluster.viz.camera import TILT, TURN, nearness, project, reach, reach_of_turns
from pointcluster.viz.picture import DrawnPanel, Picture, new_figure
from pointcluster.viz.scene import Panel, Scene, painted, pixels, shown_centers
from pointcluster.viz.shading import FEW, eye_dome

WIDEST = 14.0
"""Inches that a picture is wide at most, unless its panels would become too small."""


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
    turn: float = TURN,
    tilt: float = TILT,
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
        points: What draws the points of a cloud, instead of what the scene says.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    subject = scene.subject
    if points is None and not subject.is_picture and is_shaded(scene.shading, len(subject.pos)):
        points = eye_dome
    cells = layout(scene)
    rows, columns = max(c.row for c in cells) + 1, max(c.column for c in cells) + 1
    side = float(np.clip(WIDEST / columns, 1.35, 3.2))
    low, high = _frame(scene, turn, tilt, fit)
    width, height = high - low
    scale = side / max(height, width)
    tall, wide = max(scale * height, 0.3), max(scale * width, 0.6)
    short = min(width, height) * min(wide / width, tall / height)  # of what is drawn, in inches
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

    def at(x: float, y: float) -> tuple[float, float]:
        """A place in the figure, from inches to the right of its corner and below it."""
        return x / full_width, 1 - y / full_height

    if scene.title:
        figure.text(*at(full_width / 2, 0.12), scene.title, ha="center", va="top", fontsize=12)
    rendered = None
    if points is not None:
        screen, depth = project(subject.pos, turn=turn, tilt=tilt, up=scene.up)
        colours = np.stack([painted(scene, panel) for panel in scene.panels])
        if points is not eye_dome:  # which shows depth by itself
            colours = np.stack([faded(panel, nearness(depth)) for panel in colours])
        size = round(wide * figure.dpi), round(tall * figure.dpi)
        images = points(np.concatenate([screen, depth[:, None]], 1), colours, size, low, high)
        rendered = list(zip(images, colours, strict=True))
    drawn: list[tuple[str, Any, np.ndarray, np.ndarray]] = []
    for cell in cells:
        x = left + cell.column * (wide + gap)
        y = top + sum(above[: cell.row + 1]) + cell.row * (tall + gap)
        axes = figure.add_axes((*at(x, y + tall), wide / full_width, tall / full_height))
        axes.set_axis_off()
        if cell.above:
            place = at(x + wide / 2, y - 0.06)
            figure.text(*place, cell.above, ha="center", va="bottom", fontsize=small)
        if cell.beside:
            place, turned = at(left - 0.08, y + tall / 2), 0 if lying else 90
            figure.text(
                *place, cell.beside, ha="right", va="center", rotation=turned, fontsize=small
            )
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        if subject.is_picture:
            where, colour = _fill_picture(axes, scene, cell.panel, short)
        else:
            image = None if rendered is None else rendered[len(drawn)]
            where, colour = _fill_cloud(axes, scene, cell.panel, short, turn, tilt, image)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        if subject.is_picture:
            axes.invert_yaxis()
        if cell.panel is not None:
            drawn.append((cell.panel.title, axes, where, colour))
    return Picture(figure, tuple(drawn_panel(figure, *panel) for panel in drawn))


def drawn_panel(
    figure: Any, title: str, axes: Any, where: np.ndarray, colour: np.ndarray
) -> DrawnPanel:
    """Where the points of axes are in the picture.

    Args:
        figure: Matplotlib's figure.
        title: What stands above the panel.
        axes: Matplotlib's axes.
        where: Places in the axes ``[n, 2]``.
        colour: Of each point ``[n, 3]``.
    """
    pixels_high = figure.canvas.get_width_height()[1]
    axes.apply_aspect()
    at = axes.transData.transform(where)
    box = axes.get_window_extent()
    place = np.stack([pixels_high - at[:, 1], at[:, 0]], axis=1)
    edges = (pixels_high - box.y1, pixels_high - box.y0, box.x0, box.x1)
    return DrawnPanel(title, place, colour, edges)


def is_shaded(shading: bool | None, count: int) -> bool:
    """Whether so many points are drawn with shades, as was asked for."""
    return count > FEW if shading is None else shading


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
    *,
    turn: float = TURN,
    tilt: float = TILT,
    up: str = "y",
    front: np.ndarray | None = None,
    fade: float = 0.65,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the points of a cloud into axes; those farther from the eye are paler and smaller.

    Args:
        axes: Matplotlib's axes.
        pos: Positions.
        colour: Of each point, from 0 to 1.
        turn: Degrees about the up axis.
        tilt: Degrees from above.
        up: The axis that points up.
        front: Points that are drawn last and large.
        fade: How much paler the farthest are.

    Shapes and units:
        ``pos [P, 3]`` or ``[P, 2]``, ``colour [P, 3]``, ``front [P]`` boolean. Returns where in the
        axes the points are drawn, ``[P, 2]``, and their colours as they are drawn, ``[P, 3]``.
    """
    screen, depth = project(pos, turn=turn, tilt=tilt, up=up)
    near = nearness(depth)
    colour = faded(colour, near, fade)
    size = float(np.clip(9000 / len(pos), 0.5, 20)) * (0.6 + 0.6 * near)
    order = np.argsort(depth, kind="stable")  # the front is drawn last
    if front is not None:
        size = np.where(front, 1.8 * size, size)
        order = order[np.argsort(front[order], kind="stable")]
    axes.scatter(
        *screen[order].T,
        c=colour[order],
        s=size[order],
        linewidths=0,
        rasterized=len(pos) > 5000,
    )
    return screen, colour


def faded(colour: np.ndarray, near: np.ndarray, fade: float = 0.65) -> np.ndarray:
    """Colours that are paler at the back. [P, 3]"""
    return 1 - (1 - colour) * (1 - fade * (1 - near[:, None]))


def _inches(text: str, size: float) -> float:
    """About how long a text is, a little more than most."""
    return 0.0083 * size * len(text)


def _frame(scene: Scene, turn: float, tilt: float, fit: bool) -> tuple[np.ndarray, np.ndarray]:
    """What a panel reaches from and to, along both axes."""
    subject = scene.subject
    if subject.is_picture:
        height, width = subject.size
        return np.array([-0.5, -0.5]), np.array([width - 0.5, height - 0.5])
    if fit:
        return reach(project(subject.pos, turn=turn, tilt=tilt, up=scene.up)[0])
    return reach_of_turns(subject.pos, tilt=tilt, up=scene.up)


def _fill_picture(
    axes: Any, scene: Scene, panel: Panel | None, side: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture, or its clusters; where in the axes its points are, and in which colours."""
    subject = scene.subject
    axes.imshow(pixels(scene, panel), interpolation="nearest", aspect="auto")
    if panel is not None:
        _annotate(axes, scene, panel, side)
    colour = subject.color if panel is None else painted(scene, panel)
    assert colour is not None
    return subject.pos[:, ::-1], colour


def _fill_cloud(
    axes: Any,
    scene: Scene,
    panel: Panel | None,
    side: float,
    turn: float,
    tilt: float,
    rendered: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the clusters of a cloud, as dots if there is no rendered picture of them with the
    colours in it; where in the axes its points are, and in which colours."""
    assert panel is not None  # only pictures are shown themselves
    subject, chosen = scene.subject, scene.highlight
    view: Any = {"turn": turn, "tilt": tilt, "up": scene.up}
    where, depth = project(subject.pos, **view)
    if rendered is None:
        front = None if chosen is None else panel.index == panel.index[chosen]
        _, colour = paint_cloud(axes, subject.pos, painted(scene, panel), front=front, **view)
    else:
        image, colour = rendered
        axes.imshow(image, extent=(*axes.get_xlim(), *axes.get_ylim()), aspect="auto")
    centers, center_colour = shown_centers(scene, panel)
    if scene.centers and len(centers):
        at, center_depth = project(centers, frame=subject.pos, **view)
        seen = center_depth >= (depth.min() + depth.max()) / 2  # not those on the far side
        size = float(np.clip(1000 / len(centers), 4, 25))
        _mark(axes, at[seen], center_colour[seen], size)
    if chosen is not None:
        _star(axes, where[chosen], side)
    return where, colour


def _annotate(axes: Any, scene: Scene, panel: Panel, side: float) -> None:
    """Borders of regions, centres and the chosen point of a picture."""
    from matplotlib.collections import LineCollection

    subject = scene.subject
    shrunk = _shrunk(side)
    thin = shrunk * (0.5 if side < 2 else 0.8)
    if scene.borders:
        lines = border_lines(filled(subject.shows, panel.region))
        thick = shrunk + thin
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
        _mark(axes, pos[:, ::-1], colour, shrunk**2 * float(np.clip(0.02 * room, 2.0, 30)))
    if scene.highlight is not None:
        _star(axes, subject.pos[scene.highlight, ::-1], side)


def _mark(axes: Any, where: np.ndarray, colour: np.ndarray, size: float) -> None:
    """Rings that show on any ground, dark around white around the colour, of `size` points²."""
    axes.scatter(*where.T, s=2.6 * size, c="0.15", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=2.0 * size, c="white", linewidths=0, zorder=4)
    axes.scatter(*where.T, s=0.8 * size, c=colour, linewidths=0, zorder=4)


def _star(axes: Any, where: np.ndarray, side: float) -> None:
    """The chosen point."""
    shrunk = _shrunk(side)
    axes.scatter(
        *where,
        marker="*",
        s=40 * side * shrunk,
        c="white",
        edgecolors="black",
        linewidths=0.9 * shrunk,
        zorder=5,
    )


def _shrunk(side: float) -> float:
    """How thin lines become in a very narrow panel, which they would hide, of so many inches."""
    return min(1.0, side / 0.5)
