from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager

import pytest

from pointcluster.viz import display
from pointcluster.viz.display import no_display


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A machine of Linux without any display."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(display, "X_SOCKETS", tmp_path)
    monkeypatch.setattr(display, "TIMEOUT", 0.2)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def server(path):
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(path)
        found.listen()
        yield


def test_neither_is_set(monkeypatch):
    assert no_display() == "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert no_display() == ""


@pytest.mark.parametrize("name", [":7", ":7.1", "unix:7", "unix/:7"])
def test_an_x_server_of_this_machine(monkeypatch, tmp_path, name):
    monkeypatch.setenv("DISPLAY", name)
    silent = f"no display (DISPLAY is {name}, where no server answers)"
    assert no_display() == silent
    with server(str(tmp_path / "X7")):
        assert no_display() == ""
    assert no_display() == silent  # what it left behind is no server
    with server(f"\0{tmp_path / 'X7'}"):
        assert no_display() == ""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "tcp/localhost"])
def test_an_x_server_that_is_reached_by_tcp(monkeypatch, host):
    with socket.socket() as forwarded:
        forwarded.bind(("127.0.0.1", 0))
        number = forwarded.getsockname()[1] - 6000
        if number < 0:
            pytest.skip("the port is below those of X")
        monkeypatch.setenv("DISPLAY", f"{host}:{number}.0")
        forwarded.listen()
        assert no_display() == ""
    assert f"DISPLAY is {host}:{number}.0, where no server answers" in no_display()


def test_a_host_that_does_not_answer_is_not_waited_for(monkeypatch):
    def connect(address, timeout):
        assert address == ("far.away", 6003) and timeout == 0.2
        raise TimeoutError

    monkeypatch.setattr(display.socket, "create_connection", connect)
    monkeypatch.setenv("DISPLAY", "far.away:3")
    assert "DISPLAY is far.away:3, where no server answers" in no_display()


@pytest.mark.parametrize("whole", [False, True])
def test_wayland(monkeypatch, tmp_path, whole):
    path = str(tmp_path / "wayland-3")
    name = path if whole else os.path.basename(path)
    monkeypatch.setenv("WAYLAND_DISPLAY", name)
    monkeypatch.setenv("DISPLAY", ":5")
    assert no_display() == (
        f"no display (WAYLAND_DISPLAY is {name} and DISPLAY is :5, where no server answers)"
    )
    with server(path):
        assert no_display() == ""


@pytest.mark.parametrize("name", ["nothing", ":x", "localhost:99999999", ":7:", "x" * 300 + ":1"])
def test_names_of_no_display(monkeypatch, name):
    monkeypatch.setenv("DISPLAY", name)
    assert "where no server answers" in no_display()
