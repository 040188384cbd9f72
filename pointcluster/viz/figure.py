"""Matplotlib figures without a display, and without its global state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

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
