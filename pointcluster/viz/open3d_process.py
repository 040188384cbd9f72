"""Open3D's renderers, asked from a safe distance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.viz.cloud_file import in_space, positions
from pointcluster.viz.cloud_panel import upright
from pointcluster.viz.open3d_import import load_open3d
from pointcluster.viz.paint import shown_centers
from pointcluster.viz.scene import Scene, painted

PACKAGE = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0
"""Seconds that drawing may take."""


class RendererError(RuntimeError):
    """Open3D cannot draw here; the message tells why, and what to install."""


def render_panels(
    screen: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Pictures by Open3D's off-screen renderer, in another process; see `open3d_child.render`.

    Raises:
        RendererError: Open3D or what it needs is missing, or its process failed.
    """
    arrays: dict[str, Any] = {
        "points": screen,
        "colours": colours,
        "size": np.array(size),
        "low": low,
    }
    arrays |= {"high": high, "radius": np.array(radius)}
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        file = Path(folder) / "cloud.npz"
        np.savez(file, **arrays)
        _run("picture", file, TIMEOUT)
        return np.load(file.with_suffix(".npy"))


def show_window(scene: Scene) -> None:
    """Open3D's window on a cloud, until it is closed.

    Raises:
        RendererError: Open3D or what it needs is missing, or no window can be opened.
    """
    pos = upright(positions(scene), scene.up)
    middle = (pos.max(axis=0) + pos.min(axis=0)) / 2
    scale = max(float(np.linalg.norm(pos - middle, axis=1).max()), 1e-9)
    arrays: dict[str, Any] = {
        "points": (pos - middle) / scale,
        "colours": np.stack([painted(scene, panel) for panel in scene.panels]),
        "told": np.array(
            json.dumps({"title": scene.title, "panels": [(p.entry, p.head) for p in scene.panels]})
        ),
    }
    for i, panel in enumerate(scene.panels):
        where, colour = shown_centers(scene, panel)
        where = in_space(where, scene.subject.is_picture)
        where = (upright(where, scene.up) - middle) / scale
        keep = slice(None) if scene.centers else slice(0)
        arrays |= {f"where_{i}": where[keep], f"colour_{i}": colour[keep]}
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        file = Path(folder) / "cloud.npz"
        np.savez(file, **arrays)
        _run("window", file, None)


def _run(kind: str, file: Path, timeout: float | None) -> None:
    try:
        load_open3d()
    except ImportError as error:
        raise RendererError(str(error)) from error
    paths = [str(PACKAGE), os.environ.get("PYTHONPATH", "")]
    done = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pointcluster.viz.open3d_child", kind, str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.DEVNULL if kind == "picture" else None,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = done.communicate(timeout=timeout)[1]
    except subprocess.TimeoutExpired:
        done.kill()
        done.communicate()
        raise RendererError(f"open3d did not finish drawing in {timeout:.0f} s") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise RendererError(
            f"open3d's process was ended by {name}, in a driver most likely, or for want of one: "
            "apt-get install mesa-vulkan-drivers"
        )
    if done.returncode:
        lines = said.strip().splitlines() or ["it said nothing"]
        raise RendererError(f"open3d cannot draw: {lines[-1]}")
