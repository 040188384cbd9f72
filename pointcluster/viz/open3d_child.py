"""What runs Open3D's renderers, in a process of its own: a crash in a driver ends only that.

python -m pointcluster.viz.open3d_child (picture|window) FILE
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.viz.open3d import advice, load_open3d

KEYS = "keys: S stage, B block, H head, left and right step through all, C centres, Q close"
RIGHT, LEFT = 262, 263
"""GLFW's numbers of the arrows."""
MOST_BALLS = 10_000
"""Points up to which they are drawn as balls."""


def main(arguments: list[str]) -> int:
    """Run one of the two; what fails is said in one line.

    Args:
        arguments: What to run, and a file of arrays: of `render` or of `open_window`.
    """
    kind, file = arguments
    with np.load(file) as stored:
        arrays = dict(stored)
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
        points: Places on the screen, and nearness ``[n, 3]``.
        colours: Of the points in each picture, from 0 to 1 ``[P, n, 3]``.
        size: Width and height in pixels.
        low: What the picture reaches from, along both axes.
        high: What it reaches to.
        radius: Of a point, in pixels.

    Returns:
        Pictures ``[P, h, w, 3]``, uint8.
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
    for painted in colours:
        scene.clear_geometry()
        scene.add_geometry("points", _balls(open3d, points, painted, unit), material)
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


def open_window(
    open3d: Any, points: np.ndarray, colours: np.ndarray, told: np.ndarray, **centers: np.ndarray
) -> None:
    """Show a cloud until the window is closed; keys step through the panels.

    Args:
        open3d: The module.
        points: Positions in the unit sphere, the second axis up ``[n, 3]``.
        colours: Of the points in each panel ``[P, n, 3]``.
        told: JSON: the title, and title and head of each panel.
        centers: `where_0`, `colour_0`, ...: the centres of each panel.

    Raises:
        RuntimeError: No window can be opened.
    """
    about = json.loads(str(told))
    stepper = Stepper([tuple(panel) for panel in about["panels"]])
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points.astype(np.float64))
    window = open3d.visualization.VisualizerWithKeyCallback()
    name = about["title"] or "pointcluster"
    if not window.create_window(window_name=f"{name} ({KEYS})", width=1100, height=850):
        raise RuntimeError("open3d cannot open a window on this display")
    centers_shown = True
    balls: list[Any] = []

    def update() -> None:
        """Show the panel that was stepped to."""
        panel = stepper.current
        cloud.colors = open3d.utility.Vector3dVector(colours[panel].astype(np.float64))
        window.update_geometry(cloud)
        while balls:
            window.remove_geometry(balls.pop(), reset_bounding_box=False)
        pairs = zip(centers[f"where_{panel}"], centers[f"colour_{panel}"], strict=True)
        for where, colour in pairs if centers_shown else ():
            ball = open3d.geometry.TriangleMesh.create_sphere(0.018, 10)
            ball.translate(where)
            ball.paint_uniform_color(colour)
            ball.compute_vertex_normals()
            balls.append(ball)
            window.add_geometry(ball, reset_bounding_box=False)
        if stepper.title:
            print(stepper.title, flush=True)

    def toggle() -> None:
        nonlocal centers_shown
        centers_shown = not centers_shown

    def bind(key: int, step: Callable[[], Any]) -> None:
        def pressed(_: Any) -> bool:
            step()
            update()
            return False

        window.register_key_callback(key, pressed)

    bind(ord("S"), stepper.stage)
    bind(ord("B"), stepper.block)
    bind(ord("H"), stepper.head)
    bind(ord("C"), toggle)
    bind(RIGHT, stepper.next)
    bind(LEFT, stepper.previous)
    window.add_geometry(cloud)
    update()
    options = window.get_render_option()
    options.point_size = float(np.clip(400 / np.sqrt(len(points)), 2, 9))
    options.background_color = np.ones(3)
    view = window.get_view_control()
    view.set_lookat([0.0, 0.0, 0.0])
    view.set_front([0.54, 0.34, 0.77])
    view.set_up([0.0, 1.0, 0.0])
    window.run()
    window.destroy_window()


class Stepper:
    """Steps through panels by stage, block and head, around from the last to the first.

    Titles such as "stage 1, block 3" tell stages and blocks; any other title is a stage of its own.

    Args:
        panels: Title and head of each panel, those of one title in a row.

    Raises:
        ValueError: There are no panels.
    """

    def __init__(self, panels: Sequence[tuple[str, str]]) -> None:
        if not panels:
            raise ValueError("there are no panels to step through")
        self.panels = list(panels)
        self.current = 0

    @property
    def title(self) -> str:
        """What is seen."""
        return ", ".join(filter(None, self.panels[self.current]))

    def next(self) -> int:
        """The panel after this one."""
        self.current = (self.current + 1) % len(self.panels)
        return self.current

    def previous(self) -> int:
        """The panel before this one."""
        self.current = (self.current - 1) % len(self.panels)
        return self.current

    def stage(self) -> int:
        """The first block of the next stage, with the same head where it has one."""
        here = _stage(self.panels[self.current][0])
        return self._jump(lambda title: _stage(title) != here)

    def block(self) -> int:
        """The next block of the stage, with the same head."""
        here = self.panels[self.current][0]
        return self._jump(lambda title: _stage(title) == _stage(here) and title != here)

    def head(self) -> int:
        """The next head of the block."""
        here = self.panels[self.current][0]
        while self.panels[self.next()][0] != here:
            pass
        return self.current

    def _jump(self, wanted: Callable[[str], bool]) -> int:
        """To the next title that is wanted; stays where there is none."""
        count, head = len(self.panels), self.panels[self.current][1]
        for panel in ((self.current + i) % count for i in range(1, count)):
            title = self.panels[panel][0]
            if wanted(title):
                same = (title, head)
                self.current = self.panels.index(same) if same in self.panels else panel
                break
        return self.current


def _stage(title: str) -> str:
    match = re.match(r"stage (\d+), block \d+", title)
    return match[1] if match else title


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
