"""Open3D: loaded late, its window and off-screen renderer asked from a safe distance; its files."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.files import replacing
from pointcluster.viz.camera import in_space, upright
from pointcluster.viz.scene import Scene, painted, positions, shown_centers

ROOT = Path(__file__).resolve().parents[2]
CHILD = "pointcluster.viz.open3d_child"
TIMEOUT = 120.0
"""Seconds that drawing may take."""
PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libidn2.so.0": "libidn2-0",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libvulkan.so.1": "libvulkan1",
}
"""Libraries of the system that Open3D loads, and Debian's packages of them."""


class RendererError(RuntimeError):
    """Open3D cannot draw here; the message tells why, and what to install."""


def render_panels(
    screen: np.ndarray,
    colours: np.ndarray,
    size: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Pictures by Open3D's off-screen renderer, in another process; see `open3d_child.render`.

    Raises:
        RendererError: Open3D or what it needs is missing, or its process failed.
    """
    radius = np.clip(0.45 * min(size) / np.sqrt(len(screen)), 1, 8)
    arrays: dict[str, Any] = {"points": screen, "colours": colours, "size": size}
    return _ask("picture", arrays | {"low": low, "high": high, "radius": radius})


def show_window(scene: Scene) -> None:
    """Open3D's window on a cloud, until it is closed; see `open3d_child.open_window`.

    Raises:
        RendererError: Open3D or what it needs is missing, or no window can be opened.
    """
    pos = upright(positions(scene), scene.up)
    middle = (pos.max(axis=0) + pos.min(axis=0)) / 2
    scale = max(float(np.linalg.norm(pos - middle, axis=1).max()), 1e-9)
    told = {"title": scene.title, "panels": [(p.entry, p.head) for p in scene.panels]}
    arrays: dict[str, Any] = {
        "points": (pos - middle) / scale,
        "colours": np.stack([painted(scene, panel) for panel in scene.panels]),
        "told": json.dumps(told),
    }
    for i, panel in enumerate(scene.panels):
        where, colour = shown_centers(scene, panel)
        where = upright(in_space(where, scene.subject.is_picture), scene.up)
        keep = slice(None) if scene.centers else slice(0)
        arrays |= {f"where_{i}": ((where - middle) / scale)[keep], f"colour_{i}": colour[keep]}
    _ask("window", arrays)


def write_points(
    path: str | os.PathLike[str],
    pos: np.ndarray,
    colours: np.ndarray,
    fields: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write points in colours from 0 to 1 as .ply or .pcd, with whole numbers as further fields.

    Raises:
        ImportError: Open3D cannot be loaded.
        OSError: The file cannot be written.
    """
    open3d = load_open3d()
    if Path(path).suffix.lower() == ".pcd":
        pos = pos.astype(np.float32)  # most readers know no others
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(pos))
    cloud.point.colors = open3d.core.Tensor(np.rint(255 * colours).astype(np.uint8))
    for name, values in (fields or {}).items():
        cloud.point[name] = open3d.core.Tensor(values[:, None].astype(np.int32))
    with replacing(path) as temporary:
        if not open3d.t.io.write_point_cloud(str(temporary), cloud):
            raise OSError(f"open3d could not write {path}")
    return Path(path)


def load_open3d() -> Any:
    """Import Open3D, after torch (this package has imported it): some builds crash the other way.

    A machine without `libusb-1.0`, which Open3D links for depth cameras, gets the one of the wheel
    `libusb-package`, which the extra `viz` installs.

    Raises:
        ImportError: Open3D is not installed, or misses a library of the system; the message names
            the packages to install.
    """
    _bring_libusb()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that it imports
            return importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        what = (error.name or "open3d").split(".")[0]
        raise ImportError(
            f"{what} is not installed: pip install 'pointcluster[viz]'", name=what
        ) from error
    except (ImportError, OSError) as error:  # which of them depends on the library
        raise ImportError(f"open3d does not load: {advice(str(error))}", name="open3d") from error


def advice(message: str) -> str:
    """What is missing by an error of the loader, and how to get it, in one line."""
    named = re.search(r"(lib[\w.+-]+\.so[.\d]*)", message)
    library = "libvulkan.so.1" if "vulkan" in message.lower() else named and named[1]
    if library not in PACKAGES:
        return " ".join(message.split())
    command = f"apt-get install {PACKAGES[library]}"
    if library == "libusb-1.0.so.0":
        command += ", or pip install libusb-package"
    if library == "libvulkan.so.1":
        command += " mesa-vulkan-drivers"
    return f"{library} is missing: {command}"


def _bring_libusb() -> None:
    """Load a wheel's libusb where the system has none: Open3D then finds it in the process."""
    try:
        ctypes.CDLL("libusb-1.0.so.0")
        return
    except OSError:
        pass
    spec = importlib.util.find_spec("libusb_package")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("libusb-1.0*.so*")):
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError:  # another machine's
                continue


def _ask(kind: str, arrays: Mapping[str, Any]) -> Any:
    """What another process draws of arrays: a picture, or nothing but a window."""
    try:
        load_open3d()
    except ImportError as error:
        raise RendererError(str(error)) from error
    drawing = kind == "picture"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        file = Path(folder) / "cloud.npz"
        np.savez(file, **arrays)
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", CHILD, kind, str(file)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdout=subprocess.DEVNULL if drawing else None,
                stderr=subprocess.PIPE,
                text=True,
                timeout=TIMEOUT if drawing else None,
            )
        except subprocess.TimeoutExpired:
            raise RendererError(f"open3d did not finish drawing in {TIMEOUT:.0f} s") from None
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise RendererError(
                f"open3d's process was ended by {name}, in a driver most likely, or for want of "
                "one: apt-get install mesa-vulkan-drivers"
            )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise RendererError(f"open3d cannot draw: {lines[-1]}")
        return np.load(file.with_suffix(".npy")) if drawing else None
