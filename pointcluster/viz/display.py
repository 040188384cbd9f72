"""Whether there is a display to open a window on."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

X_SOCKETS = Path("/tmp/.X11-unix")
"""Where X servers of this machine are found."""
TIMEOUT = 2.0
"""Seconds in which a server must answer."""


def no_display() -> str:
    """Why there is no display to open a window on; empty where there is one.

    Of X11 and Wayland the server must answer: without one, Open3D would draw into a window that
    nobody sees, and wait until it is closed.
    """
    if not sys.platform.startswith("linux"):
        return ""
    wayland, x11 = (os.environ.get(name, "") for name in ("WAYLAND_DISPLAY", "DISPLAY"))
    if not wayland and not x11:
        return "no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    if (wayland and _wayland_answers(wayland)) or (x11 and _x11_answers(x11)):
        return ""
    named = [("WAYLAND_DISPLAY", wayland), ("DISPLAY", x11)]
    tried = " and ".join(f"{name} is {value}" for name, value in named if value)
    return f"no display ({tried}, where no server answers)"


def _wayland_answers(name: str) -> bool:
    return _answers(os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), name))


def _x11_answers(name: str) -> bool:
    """Names are [host]:display[.screen]; ssh forwards to one of the host localhost."""
    match = re.fullmatch(r"(?:\w+/)?(.*):(\d+)(?:\.\d+)?", name)
    if not match:
        return False
    host, number = match[1].strip("[]"), int(match[2])
    if host in ("", "unix"):
        path = str(X_SOCKETS / f"X{number}")
        return _answers(path) or _answers(f"\0{path}")  # Linux has names without a file, too
    try:
        with socket.create_connection((host, 6000 + number), TIMEOUT):
            return True
    except (OSError, OverflowError, UnicodeError):  # no such port, or host
        return False


def _answers(path: str) -> bool:
    """Whether a server listens at a socket of this machine."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        try:
            client.connect(path)
        except OSError:
            return False
    return True
