from __future__ import annotations

import sys
from ctypes.util import find_library
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from pointcluster import viz
from pointcluster.viz import draw, render, show
from pointcluster.viz.open3d import TIMEOUT, RendererError

MAKE = """
import torch
from torch_geometric.data import Data
from pointcluster import viz
from pointcluster.models import PointClusters
torch.manual_seed(0)
data = Data(pos=torch.randn(60, 3))
zeros, index = torch.zeros(60, dtype=torch.int64), torch.arange(60)[:, None] % 2
clusters = PointClusters(index, index + 0.5, zeros, zeros, torch.zeros(2, 3), zeros[:2])
"""


@pytest.fixture
def no_open3d(monkeypatch):
    def fail(*_, **__):
        raise RendererError("open3d cannot draw: it is missing")

    monkeypatch.setattr(import_module("pointcluster.viz.draw"), "render_panels", fail)
    monkeypatch.setattr(import_module("pointcluster.viz.show"), "show_window", fail)


@pytest.fixture
def display(monkeypatch):
    """A display that answers."""
    monkeypatch.setattr(import_module("pointcluster.viz.show"), "no_display", lambda: "")


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_display_a_picture_and_one_line_why(cloud, no_open3d, no_display, capsys):
    path = show(*cloud, head=0)
    assert imread(path).shape[:2] == draw(*cloud, head=0).array().shape[:2]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "drawn by Matplotlib: open3d cannot draw: it is missing",
        f"no display (neither DISPLAY nor WAYLAND_DISPLAY is set): {path}",
    ]


def test_with_a_display_on_which_no_window_opens(cloud, no_open3d, display, capsys):
    path = show(*cloud)
    assert path.exists()
    assert capsys.readouterr().err == f"open3d cannot draw: it is missing: {path}\n"


def test_where_no_server_answers_a_picture_and_one_line_why(
    cloud, no_open3d, no_display, monkeypatch, capsys
):
    monkeypatch.setenv("DISPLAY", "nothing")
    path = show(*cloud, head=0)
    assert path.exists()
    why = "DISPLAY is nothing, where no server lets this user in"
    if not find_library("X11"):
        why = "libX11.so.6 is missing: apt-get install libx11-6"
    assert capsys.readouterr().err.splitlines() == [
        "drawn by Matplotlib: open3d cannot draw: it is missing",
        f"no display ({why}): {path}",
    ]


def test_with_a_display_a_window(cloud, display, monkeypatch):
    opened = []
    monkeypatch.setattr(import_module("pointcluster.viz.show"), "show_window", opened.append)
    assert show(*cloud, head=1) is None
    assert [len(scene.panels) for scene in opened] == [1]


def test_a_picture_is_shown_as_a_file(picture, no_display, capsys):
    path = show(*picture)
    assert path.exists() and capsys.readouterr().err.endswith(f"{path}\n")
    with pytest.raises(ValueError, match="in a notebook alone"):
        show(picture[0], [picture[1]] * 2)


def test_a_notebook_shows_inline(cloud, picture, monkeypatch):
    shown = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    display.HTML, display.display = lambda text: ("page", text), shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert show(*cloud) is None and show(*picture) is None
    assert shown[0][0] == "page" and "Plotly.newPlot" in shown[0][1]
    assert isinstance(shown[1], viz.Picture)
    show(picture[0], [picture[1]] * 2)
    assert "sliders" in shown[2][1]
    monkeypatch.setitem(sys.modules, "plotly", None)
    show(*cloud)
    assert isinstance(shown[3], viz.Picture)


def test_points_that_open3d_draws_lie_where_the_others_do(cloud, monkeypatch):
    def drawn(screen, colours, size, low, high):
        width, height = size
        out = np.full((len(colours), height, width, 3), 255, np.uint8)
        x, y = ((screen[:, :2] - low) / (high - low)).T
        rows, columns = (height * (1 - y)).astype(int), (width * x).astype(int)
        for image, each in zip(out, colours, strict=True):
            for r, c, colour in zip(rows, columns, each, strict=True):
                image[max(0, r - 2) : r + 3, max(0, c - 2) : c + 3] = np.rint(255 * colour)
        return out

    monkeypatch.setattr(import_module("pointcluster.viz.draw"), "render_panels", drawn)
    data, found = cloud
    data.pos = data.pos[:40]
    found = found._replace(
        index=found.index[:40], similarity=found.similarity[:40], region=found.region[:40],
        batch=found.batch[:40],
    )  # fmt: skip
    picture = render(data, found, centers=False)
    pixels = picture.array()
    for panel in picture.panels:
        where = np.rint(panel.where).astype(int)
        seen = pixels[where[:, 0], where[:, 1]] / 255
        assert (np.abs(seen - panel.colour).max(axis=1) < 0.02).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("absent", [[], ["plotly", "imageio_ffmpeg"]])
def test_slim_machines_show_a_picture(python, tmp_path, absent):
    (tmp_path / "libvulkan.so.1").touch()  # found first, and no library
    for name, why in [
        (None, "open3d cannot draw: libvulkan.so.1 is missing: apt-get install libvulkan1 "
               "mesa-vulkan-drivers"),
        ("open3d", "open3d is not installed: pip install 'pointcluster[viz]'"),
    ]:  # fmt: skip
        if name is None and find_spec("open3d") is None:
            continue
        if name is None and "plotly" in absent:  # which open3d imports
            why = "plotly is not installed: pip install 'pointcluster[viz]'"
        done = python(
            MAKE + "print(viz.show(data, clusters, head=0))",
            absent=[*absent, *([name] if name else [])],
            environment={"LD_LIBRARY_PATH": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        path = done.stdout.strip()
        assert path.endswith("clusters.png") and imread(path).size
        assert done.stderr.splitlines() == [
            f"drawn by Matplotlib: {why}",
            f"no display (neither DISPLAY nor WAYLAND_DISPLAY is set): {path}",
        ]


@pytest.mark.slow
def test_without_matplotlib_alone_pages_and_clouds_are_written(python, tmp_path):
    code = """
for suffix in (".html", ".ply", ".pcd", ".png", ".svg", ".pdf", ".gif", ".mp4"):
    try:
        print(viz.save("a" + suffix, data, clusters, head=0))
    except ImportError as error:
        print(error)
try:
    viz.show(data, clusters, head=0)
except ImportError as error:
    print(error)
print(type(viz.figure_3d(data, clusters)).__name__)
"""
    done = python(MAKE + code, absent=["matplotlib"])
    assert done.returncode == 0, done.stderr
    missing = "matplotlib is not installed: pip install 'pointcluster[viz]'"
    assert done.stdout.splitlines() == ["a.html", "a.ply", "a.pcd", *[missing] * 6, "Figure"]
    assert sorted(path.suffix for path in tmp_path.glob("a.*")) == [".html", ".pcd", ".ply"]


@pytest.mark.slow
def test_what_is_missing_is_named(python):
    code = (
        MAKE
        + """
for suffix in (".png", ".html", ".ply", ".gif", ".mp4"):
    try:
        viz.save("a" + suffix, data, clusters, head=0)
    except ImportError as error:
        print(suffix, error)
try:
    viz.show(data, clusters)
except ImportError as error:
    print("show", error)
"""
    )
    done = python(code, absent=["matplotlib", "plotly", "open3d", "imageio_ffmpeg", "PIL"])
    assert done.returncode == 0, done.stderr
    missing = ["matplotlib", "plotly", "open3d", "matplotlib", "matplotlib", "matplotlib"]
    suffixes = [".png", ".html", ".ply", ".gif", ".mp4", "show"]
    assert done.stdout.splitlines() == [
        f"{suffix} {name} is not installed: pip install 'pointcluster[viz]'"
        for suffix, name in zip(suffixes, missing, strict=True)
    ]
    assert TIMEOUT > 30
