from __future__ import annotations

import importlib.util

import pytest

from pointcluster.viz.open3d_import import advice

HERE = importlib.util.find_spec("open3d") is not None
LOAD = "from pointcluster.viz.open3d_import import load_open3d\n"
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


def test_without_open3d(python):
    done = python(LOAD + CATCH, absent=["open3d"])
    assert done.stdout == "open3d is not installed: pip install 'pointcluster[viz]'\n"


def test_a_library_that_does_not_load_is_named(python, tmp_path):
    (tmp_path / "fake" / "open3d").mkdir(parents=True)
    for error in ("ImportError", "OSError"):
        (tmp_path / "fake" / "open3d" / "__init__.py").write_text(
            f"raise {error}('libGL.so.1: cannot open shared object file')"
        )
        done = python(LOAD + CATCH, path=[tmp_path / "fake"], absent=["libusb_package"])
        assert done.stdout == (
            "open3d does not load: libGL.so.1 is missing: apt-get install libgl1\n"
        )


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="open3d is not installed")
@pytest.mark.parametrize("order", ["torch first", "open3d first"])
def test_open3d_and_torch_in_either_order(python, order):
    first = "import torch\n" if order == "torch first" else ""
    # The wheel's libusb, without which open3d does not load on a slim machine, and no torch yet.
    path = importlib.util.find_spec("pointcluster.viz.open3d_import").origin
    before = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("alone", {path!r})
alone = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
alone.load_open3d()
"""
    code = first + before + LOAD + CATCH + "import torch; print(torch.ones(3).sum().item())\n"
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "loaded open3d\n3.0\n"), done.stderr


@pytest.mark.skipif(not HERE, reason="open3d is not installed")
def test_no_libusb_at_all_names_the_packages(python):
    # With neither the system's nor the wheel's: the finder is told that there is no wheel.
    code = """
import ctypes
try:
    ctypes.CDLL("libusb-1.0.so.0")
    print("here")
except OSError:
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == "libusb_package" else find(name)
"""
    done = python(code + LOAD + CATCH)
    assert done.returncode == 0, done.stderr
    if not done.stdout.startswith("here"):
        assert done.stdout == (
            "open3d does not load: libusb-1.0.so.0 is missing: apt-get install libusb-1.0-0, or "
            "pip install libusb-package\n"
        )
