from __future__ import annotations

import json
import socket
import subprocess
import sys
from ctypes.util import find_library
from types import SimpleNamespace

import numpy as np
import pytest

from pointcluster.viz import open3d_child, open3d_process
from pointcluster.viz.open3d_process import RendererError, render_panels, show_window
from pointcluster.viz.scene import make_scene


def ask(monkeypatch, program, timeout=60.0):
    """Ask for a picture where another program stands for the one that draws."""
    real = subprocess.Popen

    def start(command, **options):
        kind, file = command[-2:]
        return real([sys.executable, "-c", program, kind, file], **options)

    monkeypatch.setattr(open3d_process, "load_open3d", lambda: None)
    monkeypatch.setattr(open3d_process.subprocess, "Popen", start)
    monkeypatch.setattr(open3d_process, "TIMEOUT", timeout)
    size, corner = (4, 3), np.ones(2)
    return render_panels(np.zeros((5, 3)), np.zeros((2, 5, 3)), size, -corner, corner, 2.0)


def test_what_the_process_draws_comes_back(monkeypatch):
    program = """
import sys, numpy as np
with np.load(sys.argv[2]) as found:
    assert sys.argv[1] == "picture" and found["points"].shape == (5, 3)
    pictures = np.full((len(found["colours"]), 3, 4, 3), 7, np.uint8)
np.save(sys.argv[2].replace("npz", "npy"), pictures)
"""
    found = ask(monkeypatch, program)
    assert found.shape == (2, 3, 4, 3) and (found == 7).all()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import sys; print('so\\nit is', file=sys.stderr); sys.exit(1)", "cannot draw: it is"),
        ("import sys; sys.exit(3)", "cannot draw: it said nothing"),
    ],
)
def test_a_crash_is_an_error_of_one_line(monkeypatch, program, message):
    with pytest.raises(RendererError, match=message) as caught:
        ask(monkeypatch, program)
    assert "\n" not in str(caught.value)


def test_a_process_that_hangs_is_ended(monkeypatch):
    with pytest.raises(RendererError, match="did not finish drawing in 0 s"):
        ask(monkeypatch, "import time; time.sleep(60)", timeout=0.3)


class Cloud:
    """Stands for open3d.geometry.PointCloud, and a mesh."""

    def __getattr__(self, name):
        return lambda *_, **__: None


class Window:
    """Stands for Open3D's window: presses keys, and notes the colours after each."""

    works = True

    def __init__(self, keys):
        self.keys, self.calls, self.seen, self.meshes = keys, {}, [], 0

    def create_window(self, **options):
        self.name = options["window_name"]
        return self.works

    def register_key_callback(self, key, call):
        self.calls[key] = call

    def add_geometry(self, what, reset_bounding_box=True):
        if reset_bounding_box:
            self.cloud = what
        else:
            self.meshes += 1

    def remove_geometry(self, what, reset_bounding_box=True):
        self.meshes -= 1

    def run(self):
        for key in self.keys:
            assert self.calls[key](self) is False
            self.seen.append((np.asarray(self.cloud.colors).copy(), self.meshes))

    def __getattr__(self, name):
        return lambda *_: SimpleNamespace(
            set_lookat=print, set_front=lambda _: None, set_up=lambda _: None
        )


def fake(window):
    return SimpleNamespace(
        geometry=SimpleNamespace(
            PointCloud=Cloud, TriangleMesh=SimpleNamespace(create_sphere=lambda *_: Cloud())
        ),
        utility=SimpleNamespace(Vector3dVector=lambda values: values),
        visualization=SimpleNamespace(VisualizerWithKeyCallback=lambda: window),
    )


def arrays_of_window(monkeypatch, scene):
    """What the process of a window is given."""
    kept = {}

    def run(kind, file, timeout):
        assert (kind, timeout) == ("window", None)
        with np.load(file) as found:
            kept.update({name: found[name] for name in found.files})

    monkeypatch.setattr(open3d_process, "_run", run)
    monkeypatch.setattr(open3d_child, "check_displays", lambda: None)
    show_window(scene)
    return kept


def test_keys_change_what_the_window_shows(monkeypatch, cloud, capsys):
    data, found = cloud
    both = {
        "stage 0, block 0": found,
        "stage 1, block 0": found._replace(index=1 - found.index % 2),
    }
    scene = make_scene(data, both, title="so")
    arrays = arrays_of_window(monkeypatch, scene)
    assert arrays["colours"].shape == (4, 300, 3)
    assert np.linalg.norm(arrays["points"], axis=1).max() == pytest.approx(1)
    assert [tuple(each) for each in json.loads(str(arrays["told"]))["panels"]] == [
        (panel.entry, panel.head) for panel in scene.panels
    ]
    right, left = 262, 263
    window = Window([ord("H"), ord("S"), ord("B"), ord("C"), ord("C"), right, left])
    open3d_child.open_window(fake(window), **arrays)
    panels = [1, 3, 3, 3, 3, 0, 3]
    for (colours, meshes), panel, centers in zip(
        window.seen, panels, [4, 4, 4, 0, 4, 4, 4], strict=True
    ):
        np.testing.assert_array_equal(colours, arrays["colours"][panel])
        assert meshes == centers
    assert "so (keys: S stage" in window.name
    assert "stage 1, block 0, head 1" in capsys.readouterr().out


def test_a_window_that_does_not_open(monkeypatch, cloud):
    arrays = arrays_of_window(monkeypatch, make_scene(*cloud, centers=False))
    assert len(arrays["where_0"]) == 0
    window = Window([])
    window.works = False
    with pytest.raises(RuntimeError, match="cannot open a window"):
        open3d_child.open_window(fake(window), **arrays)


LIBRARIES = {
    "libwayland-client.so.0": (
        "wl_display_connect",
        "wl_display_disconnect",
        "wl_display_roundtrip",
    ),
    "libX11.so.6": ("XOpenDisplay", "XCloseDisplay"),
}


@pytest.fixture
def displays(monkeypatch):
    """A machine of Linux: which libraries it has, whether each lets in; what was left again."""
    lets_in, left = {}, []

    class Function:
        def __init__(self, library, name):
            self.library, self.leaves = library, name == LIBRARIES[library][1]
            self.waits = name in LIBRARIES[library][2:]

        def __call__(self, value):
            if self.waits:
                assert value.value == 99
                return -1 if lets_in[self.library] == "breaks off" else 0
            if self.leaves:
                left.append((self.library, value.value))
                return None
            assert value is None
            return 99 if lets_in[self.library] else None

    def load(library):
        if library not in lets_in:
            raise OSError("no such file")
        return SimpleNamespace(**{name: Function(library, name) for name in LIBRARIES[library]})

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(open3d_child.ctypes, "CDLL", load)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return lets_in, left


def test_a_display_that_lets_in(monkeypatch, displays):
    lets_in, left = displays
    lets_in |= {"libX11.so.6": True, "libwayland-client.so.0": False}
    monkeypatch.setenv("DISPLAY", ":7")
    open3d_child.check_displays()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    open3d_child.check_displays()  # one of the two is enough
    assert left == [("libX11.so.6", 99)] * 2


def test_a_display_that_refuses_or_cannot_be_asked(monkeypatch, displays):
    lets_in, left = displays
    with pytest.raises(RuntimeError, match="neither DISPLAY nor WAYLAND_DISPLAY is set"):
        open3d_child.check_displays()
    lets_in["libX11.so.6"] = False
    monkeypatch.setenv("DISPLAY", ":7")
    with pytest.raises(RuntimeError, match="^DISPLAY is :7, which does not let this user in$"):
        open3d_child.check_displays()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    message = "libwayland-client.so.0 is missing: apt-get install libwayland-client0; DISPLAY is"
    with pytest.raises(RuntimeError, match=message):
        open3d_child.check_displays()
    # ... and the window's process does ask before it draws
    with pytest.raises(RuntimeError, match="does not let this user in"):
        open3d_child.open_window(fake(Window([])), POINTS, COLOURS, np.array("{}"))
    assert left == []


def test_a_display_that_breaks_off(monkeypatch, displays):
    displays[0]["libwayland-client.so.0"] = "breaks off"
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    with pytest.raises(RuntimeError, match="WAYLAND_DISPLAY is wayland-1, which does not let"):
        open3d_child.check_displays()


@pytest.mark.skipif(
    sys.platform != "linux" or not find_library("wayland-client"), reason="needs libwayland-client"
)
def test_a_wayland_display_that_never_answers(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "display"))
        server.listen()
        monkeypatch.setattr(open3d_child, "ANSWER", 0.3)
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.setenv("WAYLAND_DISPLAY", str(tmp_path / "display"))
        with pytest.raises(RuntimeError, match=r"display, which has not answered in 0\.3 seconds"):
            open3d_child.check_displays()


@pytest.mark.skipif(sys.platform != "linux" or not find_library("X11"), reason="needs libX11")
def test_a_display_that_never_answers(monkeypatch):
    """A server that accepts connections and says nothing: the library alone would wait for ever."""
    with socket.socket() as server:
        for number in range(90, 200):
            try:
                server.bind(("127.0.0.1", 6000 + number))
                break
            except OSError:
                continue
        server.listen()
        monkeypatch.setattr(open3d_child, "ANSWER", 0.3)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{number}")
        with pytest.raises(
            RuntimeError, match=r"DISPLAY is .*, which has not answered in 0\.3 sec"
        ):
            open3d_child.check_displays()


POINTS = np.array([[-0.5, 0.5, 0.0], [0.5, -0.5, 0.0]])
COLOURS = np.array([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]], dtype=float)
NO_VULKAN = (
    "open3d cannot draw: libvulkan.so.1 is missing: apt-get install libvulkan1 mesa-vulkan-drivers"
)


def render_two_points():
    return render_panels(POINTS, COLOURS, (80, 60), -np.ones(2), np.ones(2), 6.0)


@pytest.mark.slow
def test_open3d_itself_draws(open3d):
    try:
        found = render_two_points()
    except RendererError as error:
        assert str(error) == NO_VULKAN or str(error).endswith("install mesa-vulkan-drivers")
        pytest.skip(str(error))
    assert found.shape == (2, 60, 80, 3)
    near = np.abs(found[0, [15, 45], [20, 60]] - np.array([[255, 0, 0], [0, 0, 255]]))
    assert near.max() <= 5  # a ball's middle is a little darker than its point
    assert (found[:, 0, 0] == 255).all()


@pytest.mark.slow
def test_without_vulkan_the_packages_are_named(open3d, monkeypatch, tmp_path):
    (tmp_path / "libvulkan.so.1").touch()  # found first, and no library
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(RendererError) as caught:
        render_two_points()
    assert str(caught.value) == NO_VULKAN


@pytest.mark.slow
def test_without_a_driver_of_vulkan_it_is_named(open3d, monkeypatch):
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nonexistent")
    with pytest.raises(RendererError, match="apt-get install .*mesa-vulkan-drivers$"):
        render_two_points()
