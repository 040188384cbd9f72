from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from ctypes.util import find_library
from types import SimpleNamespace

import pytest

from pointcluster.viz import display
from pointcluster.viz.display import connects, no_display

LIBRARIES = {
    "libwayland-client.so.0": (
        "wl_display_connect",
        "wl_display_disconnect",
        "wl_display_roundtrip",
    ),
    "libX11.so.6": ("XOpenDisplay", "XCloseDisplay"),
}
X11 = sys.platform == "linux" and find_library("X11")
WAYLAND = sys.platform == "linux" and find_library("wayland-client")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A machine of Linux without any display."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def displays(monkeypatch):
    """Which libraries the machine has, whether each lets in; what was left again."""
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

    def run(command, **options):
        """What this file does in a process of its own, done in this one."""
        problem = connects(command[-1])
        return SimpleNamespace(returncode=int(bool(problem)), stdout=problem + "\n")

    monkeypatch.setattr(display.ctypes, "CDLL", load)
    monkeypatch.setattr(display.subprocess, "run", run)
    return lets_in, left


def test_neither_is_set(monkeypatch):
    assert no_display() == "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert no_display() == ""


def test_a_display_that_lets_in(monkeypatch, displays):
    lets_in, left = displays
    lets_in |= {"libX11.so.6": True, "libwayland-client.so.0": False}
    monkeypatch.setenv("DISPLAY", ":7")
    assert no_display() == ""
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    assert no_display() == ""  # one of the two is enough
    assert left == [("libX11.so.6", 99)] * 2


def test_a_display_that_refuses_or_cannot_be_asked(monkeypatch, displays):
    lets_in, left = displays
    lets_in["libX11.so.6"] = False
    monkeypatch.setenv("DISPLAY", ":7")
    refused = "DISPLAY is :7, where no server lets this user in"
    assert no_display() == f"no display ({refused})"
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    missing = "libwayland-client.so.0 is missing: apt-get install libwayland-client0"
    assert no_display() == f"no display ({missing}; {refused})"
    assert left == []


def test_a_display_that_breaks_off(monkeypatch, displays):
    displays[0]["libwayland-client.so.0"] = "breaks off"
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-1")
    assert no_display() == "no display (WAYLAND_DISPLAY is wayland-1, where no server lets this " \
        "user in)"  # fmt: skip


def test_a_crash_of_a_library_is_no_display(monkeypatch):
    done = SimpleNamespace(returncode=-11, stdout="")
    monkeypatch.setattr(display.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setenv("DISPLAY", ":7")
    assert no_display() == "no display (DISPLAY is :7, where no server lets this user in)"


@pytest.mark.skipif(not X11, reason="needs libX11")
@pytest.mark.parametrize("name", ["nothing", ":x", "localhost:99999999", ":7:", "x" * 300 + ":1"])
def test_names_of_no_display(monkeypatch, name):
    monkeypatch.setenv("DISPLAY", name)
    assert no_display() == f"no display (DISPLAY is {name}, where no server lets this user in)"


@pytest.mark.skipif(not WAYLAND, reason="needs libwayland-client")
@pytest.mark.parametrize("whole", [False, True])
def test_a_wayland_display_that_never_answers(monkeypatch, tmp_path, whole):
    path = str(tmp_path / "wayland-3")
    name = path if whole else os.path.basename(path)
    monkeypatch.setenv("WAYLAND_DISPLAY", name)
    refused = f"WAYLAND_DISPLAY is {name}, where no server lets this user in"
    assert no_display() == f"no display ({refused})"
    monkeypatch.setattr(display, "TIMEOUT", 1.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        silent = f"WAYLAND_DISPLAY is {name}, which has not answered in 1 seconds"
        assert no_display() == f"no display ({silent})"


@pytest.mark.skipif(not X11, reason="needs libX11")
def test_an_x_display_that_never_answers(monkeypatch):
    """A server that accepts connections and says nothing: the library alone would wait for ever."""
    monkeypatch.setattr(display, "TIMEOUT", 1.0)
    with socket.socket() as server:
        for number in range(90, 200):
            try:
                server.bind(("127.0.0.1", 6000 + number))
                break
            except OSError:
                continue
        server.listen()
        name = f"127.0.0.1:{number}"
        monkeypatch.setenv("DISPLAY", name)
        silent = f"DISPLAY is {name}, which has not answered in 1 seconds"
        assert no_display() == f"no display ({silent})"


@pytest.mark.slow
@pytest.mark.skipif(not X11 or shutil.which("Xvfb") is None, reason="needs libX11 and Xvfb")
def test_an_x_server(monkeypatch):
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read) as told:
            name = f":{int(told.readline())}"
        monkeypatch.setenv("DISPLAY", name)
        assert no_display() == ""
        monkeypatch.setenv("DISPLAY", f"unix{name}.0")
        assert no_display() == ""
    finally:
        server.terminate()
        server.wait()
    assert f"DISPLAY is unix{name}.0, where no server lets this user in" in no_display()
