"""A finished picture: Matplotlib's figure, without a display and without its global state."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pointcluster._optional import installed_by
from pointcluster.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Files of these kinds would note when they were written.
_UNDATED = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of the given size in inches, drawn by the Agg canvas.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    with installed_by("viz"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, SVG or PDF, by the suffix, beside the old file, and rename."""
    from matplotlib import rc_context

    kind = Path(path).suffix.lower().lstrip(".")
    kind = kind if kind in _UNDATED else "png"
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "pointcluster"}):
        figure.savefig(temporary, format=kind, metadata=_UNDATED[kind])
    return Path(path)


class DrawnPanel(NamedTuple):
    """Where one panel's points are in the finished picture."""

    title: str
    """What stands above it."""
    where: np.ndarray
    """Row and column of each point in :meth:`Picture.array`, as fractions of pixels. [n, 2]"""
    colour: np.ndarray
    """The colour that each point is drawn in, from 0 to 1. [n, 3]"""
    box: tuple[float, float, float, float]
    """Rows and columns that the panel fills: top, bottom, left, right."""


def drawn_panel(title: str, axes: Any, where: np.ndarray, colour: np.ndarray) -> DrawnPanel:
    """The panel of Matplotlib's axes, whose points lie there at these places [n, 2]."""
    tall = axes.figure.canvas.get_width_height()[1]
    axes.apply_aspect()
    x, y = axes.transData.transform(where).T
    box = axes.get_window_extent()
    edges = (tall - box.y1, tall - box.y0, box.x0, box.x1)
    return DrawnPanel(title, np.stack([tall - y, x], axis=1), colour, edges)


class Picture:
    """A drawn figure; a notebook shows it by itself.

    Args:
        figure: Matplotlib's figure.
        panels: Where its points are.
    """

    def __init__(self, figure: Figure, panels: tuple[DrawnPanel, ...]) -> None:
        self.figure, self.panels = figure, panels

    def array(self) -> np.ndarray:
        """Its pixels, red, green and blue of type uint8. [h, w, 3]"""
        canvas = self.figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as .png, .svg or .pdf, beside the old file, and rename.

        Raises:
            ValueError: The suffix is another one.
        """
        if Path(path).suffix.lower().lstrip(".") not in _UNDATED:
            raise ValueError(f"{path}: a picture is written as .png, .svg or .pdf")
        return save_figure(self.figure, path)

    def point_at(self, row: float, column: float) -> tuple[int, int] | None:
        """Which panel a pixel lies in, and the number of the point that is drawn nearest to it.

        Args:
            row: Row in :meth:`array`.
            column: Column in it.

        Returns:
            Numbers of panel and point; `None` beside all panels.
        """
        for number, panel in enumerate(self.panels):
            top, bottom, left, right = panel.box
            if top <= row <= bottom and left <= column <= right:
                away = np.square(panel.where - [row, column]).sum(axis=1)
                return number, int(away.argmin())
        return None

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        return file.getvalue()

    def __repr__(self) -> str:
        height, width = self.array().shape[:2]
        return f"Picture({width} x {height}, {len(self.panels)} panels)"
