"""What runs Open3D's renderers, in a process of its own: a crash in a driver ends only that.

python -m pointcluster.viz.open3d_child (picture|window) FILE
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.viz.open3d_import import advice, load_open3d
from pointcluster.viz.stepper import Stepper

KEYS = "keys: S stage, B block, H head, left and right step through all, C centres, Q close"


MOST_BALLS = 10_000
"""Points up to which they are drawn as balls."""


def main(arguments: list[str]) -> int:
    """Run one of the two; what fails is said in one line.

    Args:
        arguments: What to run, and a file of arrays: of `render` or of `open_window`.
    """
    kind, file = arguments
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    try:
        open3d = load_open3d()
        if kind == "picture":
            np.save(Path(file).with_suffix(".npy"), render(open3d, **arrays))
        else:
            open_window(open3d, **arrays)
    except (ImportError, OSError, RuntimeError) as error:
        print(advice(str(error)), file=sys.stderr)
        return 1
    return 0


def render(
    open3d: Any,
    points: np.ndarray,
    colours: np.ndarray,
    size: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    radius: np.ndarray,
) -> np.ndarray:
    """Draw points by Open3D's off-screen renderer, as seen along the third axis.

    Args:
        open3d: The module.
        points: Places on the screen, and nearness.
        colours: Of the points in each picture.
        size: Width and height in pixels.
        low: What the picture reaches from, along both axes.
        high: What it reaches to.
        radius: Of a point, in pixels.

    Shapes and units:
        ``points [n, 3]``, ``colours [P, n, 3]`` from 0 to 1; returns ``[P, h, w, 3]`` uint8.
    """
    rendering = open3d.visualization.rendering
    width, height = map(int, size)
    renderer = rendering.OffscreenRenderer(width, height)
    scene = renderer.scene
    scene.set_background([1.0, 1.0, 1.0, 1.0])
    scene.view.set_post_processing(False)  # it would change the colours
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.point_size = float(2 * radius)
    middle = (low + high) / 2
    half = (high - low) / 2
    scene.camera.look_at([*middle, 0.0], [*middle, 10.0], [0.0, 1.0, 0.0])
    scene.camera.set_projection(
        rendering.Camera.Projection.Ortho, -half[0], half[0], -half[1], half[1], 0.1, 20.0
    )
    unit = float(radius) * float(high[0] - low[0]) / width
    out = []
    for each in colours:
        scene.clear_geometry()
        scene.add_geometry("points", _balls(open3d, points, each, unit), material)
        out.append(np.asarray(renderer.render_to_image())[..., :3].copy())
    return np.stack(out)


def _balls(open3d: Any, points: np.ndarray, colours: np.ndarray, radius: float) -> Any:
    """Points as balls that are a little darker at the rim; very many as points."""
    vector = open3d.utility.Vector3dVector
    if len(points) > MOST_BALLS:
        cloud = open3d.geometry.PointCloud()
        cloud.points, cloud.colors = vector(points), vector(colours)
        return cloud
    ball = open3d.geometry.TriangleMesh.create_sphere(1.0, 7)
    corners, triangles = np.asarray(ball.vertices), np.asarray(ball.triangles)
    light = 0.75 + 0.25 * corners[:, 2].clip(0, 1)
    start = np.arange(len(points))[:, None, None] * len(corners)
    mesh = open3d.geometry.TriangleMesh()
    mesh.vertices = vector((points[:, None] + radius * corners).reshape(-1, 3))
    mesh.vertex_colors = vector((colours[:, None] * light[:, None]).reshape(-1, 3))
    mesh.triangles = open3d.utility.Vector3iVector((triangles + start).reshape(-1, 3))
    return mesh


# What names a display, and the functions that connect to it, wait for an answer where connecting
# does not, and leave it again.
DISPLAYS = [
    (
        "WAYLAND_DISPLAY",
        "libwayland-client.so.0",
        "wl_display_connect",
        "wl_display_roundtrip",
        "wl_display_disconnect",
    ),
    ("DISPLAY", "libX11.so.6", "XOpenDisplay", None, "XCloseDisplay"),
]
ANSWER = 20.0
"""Seconds that a display has to answer."""
PACKAGES = {"libwayland-client.so.0": "libwayland-client0", "libX11.so.6": "libx11-6"}


def check_displays() -> None:
    """Connect to a display, as Open3D's window will: where that fails, it would draw where nobody
    sees it, and wait for ever.

    Raises:
        RuntimeError: No display answers and lets this user in, or the library to ask by is missing.
    """
    if not sys.platform.startswith("linux"):
        return
    problems = []
    for variable, library, connect, wait, leave in DISPLAYS:
        if not (name := os.environ.get(variable)):
            continue
        try:
            functions = ctypes.CDLL(library)
        except OSError:
            problems.append(f"{library} is missing: apt-get install {PACKAGES[library]}")
            continue
        connection = _connected(
            getattr(functions, connect), None if wait is None else getattr(functions, wait)
        )
        if connection is None:
            problems.append(f"{variable} is {name}, which has not answered in {ANSWER:g} seconds")
        elif connection:
            getattr(functions, leave)(ctypes.c_void_p(connection))
            return
        else:
            problems.append(f"{variable} is {name}, which does not let this user in")
    raise RuntimeError("; ".join(problems) or "neither DISPLAY nor WAYLAND_DISPLAY is set")


def _connected(connect: Any, wait: Any) -> int | None:
    """The connection, 0 where it is refused; `None` if nothing answers: no library gives up."""
    connect.argtypes, connect.restype = [ctypes.c_char_p], ctypes.c_void_p
    found: list[int] = []

    def ask() -> None:
        connection = connect(None) or 0
        if connection and wait is not None and wait(ctypes.c_void_p(connection)) < 0:
            connection = 0
        found.append(connection)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER)
    return found[0] if found else None


def open_window(
    open3d: Any, points: np.ndarray, colours: np.ndarray, told: np.ndarray, **centers: np.ndarray
) -> None:
    """Show a cloud until the window is closed; keys step through the panels.

    Args:
        open3d: The module.
        points: Positions, the second axis up.
        colours: Of the points in each panel.
        told: JSON: the title, and title and head of each panel.
        centers: `where_0`, `colour_0`, ...: the centres of each panel.

    Shapes and units:
        ``points [n, 3]``, ``colours [P, n, 3]``.

    Raises:
        RuntimeError: No window can be opened.
    """
    check_displays()
    about = json.loads(str(told))
    stepper = Stepper([tuple(each) for each in about["panels"]])
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points.astype(np.float64))
    window = open3d.visualization.VisualizerWithKeyCallback()
    name = about["title"] or "pointcluster"
    if not window.create_window(window_name=f"{name} ({KEYS})", width=1100, height=850):
        raise RuntimeError("open3d cannot open a window on this display")
    shown: dict[str, Any] = {"centers": True, "meshes": []}

    def update(first: bool = False) -> None:
        panel = stepper.current
        cloud.colors = open3d.utility.Vector3dVector(colours[panel].astype(np.float64))
        if first:
            window.add_geometry(cloud)
        else:
            window.update_geometry(cloud)
        for mesh in shown["meshes"]:
            window.remove_geometry(mesh, reset_bounding_box=False)
        shown["meshes"] = []
        if shown["centers"]:
            pairs = zip(centers[f"where_{panel}"], centers[f"colour_{panel}"], strict=True)
            for where, colour in pairs:
                mesh = open3d.geometry.TriangleMesh.create_sphere(0.018, 10)
                mesh.translate(where)
                mesh.paint_uniform_color(colour)
                mesh.compute_vertex_normals()
                shown["meshes"].append(mesh)
                window.add_geometry(mesh, reset_bounding_box=False)
        if stepper.title:
            print(stepper.title, flush=True)

    def by(step: Any) -> Any:
        def pressed(_: Any) -> bool:
            step()
            update()
            return False

        return pressed

    def toggle() -> None:
        shown["centers"] = not shown["centers"]

    right, left = 262, 263  # GLFW's numbers
    for key, step in [
        (ord("S"), stepper.stage),
        (ord("B"), stepper.block),
        (ord("H"), stepper.head),
        (ord("C"), toggle),
        (right, stepper.next),
        (left, stepper.previous),
    ]:
        window.register_key_callback(key, by(step))
    update(first=True)
    options = window.get_render_option()
    options.point_size = float(np.clip(400 / np.sqrt(len(points)), 2, 9))
    options.background_color = np.ones(3)
    view = window.get_view_control()
    view.set_lookat([0.0, 0.0, 0.0])
    view.set_front([0.54, 0.34, 0.77])
    view.set_up([0.0, 1.0, 0.0])
    window.run()
    window.destroy_window()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
