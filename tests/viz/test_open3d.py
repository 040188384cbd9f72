from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from pointcluster.viz import open3d as asking
from pointcluster.viz.open3d import RendererError, advice, load_open3d, render_panels

HERE = importlib.util.find_spec("open3d") is not None
LOAD = "from pointcluster.viz.open3d import load_open3d\n"
CATCH = """
try:
    print("loaded", load_open3d().__name__)
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("libusb-1.0.so.0: cannot open shared object file: No such file or directory",
         "libusb-1.0.so.0 is missing: apt-get install libusb-1.0-0, or pip install libusb-package"),
        ("libGL.so.1: cannot open shared object file", "apt-get install libgl1"),
        ("Failed to load vulkan library!", "apt-get install libvulkan1 mesa-vulkan-drivers"),
        ("libEGL.so.1: cannot open", "libEGL.so.1 is missing: apt-get install libegl1"),
        ("something\\n  else", "something"),
    ],
)  # fmt: skip
def test_what_is_missing_and_how_to_get_it(message, expected):
    assert expected in advice(message)
    assert "\n" not in advice("two\nlines")


def test_without_open3d(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError) as caught:
        load_open3d()
    assert str(caught.value) == "open3d is not installed: pip install 'pointcluster[viz]'"


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Loads an open3d that raises an error instead; gives what is said."""

    def load(error):
        (tmp_path / "open3d.py").write_text(f"raise {error!r}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "open3d", raising=False)
        with pytest.raises(ImportError) as caught:
            load_open3d()
        return str(caught.value)

    return load


@pytest.mark.parametrize("kind", [ImportError, OSError])
def test_a_library_that_does_not_load_is_named(broken, kind):
    said = broken(kind("libGL.so.1: cannot open shared object file"))
    assert said == "open3d does not load: libGL.so.1 is missing: apt-get install libgl1"


@pytest.mark.parametrize("wheel", [False, True])
def test_libusb_is_the_systems_or_the_wheels(broken, monkeypatch, tmp_path, wheel):
    (tmp_path / "libusb_package").mkdir()
    for name in ("__init__.py", "libusb-1.0.so", "libusb-1.0.so.0"):
        (tmp_path / "libusb_package" / name).touch()
    loaded = []

    def load(name, mode=None):
        loaded.append((name, mode))
        if name != str(tmp_path / "libusb_package" / "libusb-1.0.so.0"):
            raise OSError("no such file, or another machine's")

    monkeypatch.setattr(asking.ctypes, "CDLL", load)
    found = importlib.util.spec_from_file_location(
        "libusb_package", tmp_path / "libusb_package" / "__init__.py",
        submodule_search_locations=[str(tmp_path / "libusb_package")],
    )  # fmt: skip
    monkeypatch.setattr(asking.importlib.util, "find_spec", lambda _: found if wheel else None)
    assert broken(OSError("libusb-1.0.so.0: cannot open shared object file")) == (
        "open3d does not load: libusb-1.0.so.0 is missing: apt-get install libusb-1.0-0, or "
        "pip install libusb-package"
    )
    assert loaded[0] == ("libusb-1.0.so.0", None)
    assert [mode for _, mode in loaded[1:]] == [asking.ctypes.RTLD_GLOBAL] * (2 * wheel)


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="open3d is not installed")
@pytest.mark.parametrize("order", ["torch first", "open3d first"])
def test_open3d_and_torch_in_either_order(python, order):
    first = "import torch\n" if order == "torch first" else ""
    # The wheel's libusb, without which open3d does not load on a slim machine, and no torch yet.
    before = """
import ctypes, importlib.util, pathlib, warnings
spec = importlib.util.find_spec("libusb_package")
for folder in spec.submodule_search_locations if spec else []:
    for path in sorted(pathlib.Path(folder).glob("libusb-1.0*.so*")):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
warnings.simplefilter("ignore")
import open3d
"""
    code = first + before + LOAD + CATCH + "import torch; print(torch.ones(3).sum().item())\n"
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "loaded open3d\n3.0\n"), done.stderr


def stand_in(monkeypatch, program, timeout=60.0):
    """Let another program stand for the one that draws."""
    real = subprocess.Popen

    def start(command, **options):
        kind, file = command[-2:]
        return real([sys.executable, "-c", program, kind, file], **options)

    monkeypatch.setattr(asking, "load_open3d", lambda: None)
    monkeypatch.setattr(asking.subprocess, "Popen", start)
    monkeypatch.setattr(asking, "TIMEOUT", timeout)


def ask(monkeypatch, program, timeout=60.0):
    """Ask another program for a picture."""
    stand_in(monkeypatch, program, timeout)
    size, corner = (4, 3), np.ones(2)
    return render_panels(np.zeros((5, 3)), np.zeros((2, 5, 3)), size, -corner, corner)


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


def test_a_window_stays_as_long_as_it_is_looked_at(monkeypatch):
    stand_in(monkeypatch, "import time; time.sleep(0.3)", timeout=0.1)
    assert asking._ask("window", {}) is None


POINTS = np.array([[-0.5, 0.5, 0.0], [0.5, -0.5, 0.0]])
COLOURS = np.array([[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]], dtype=float)
NO_VULKAN = (
    "open3d cannot draw: libvulkan.so.1 is missing: apt-get install libvulkan1 mesa-vulkan-drivers"
)


def render_two_points():
    return render_panels(POINTS, COLOURS, (80, 60), -np.ones(2), np.ones(2))


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
