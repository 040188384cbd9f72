"""Whether there is a display to open a window on; this file is also run, alone, to find out."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

TIMEOUT = 10.0
"""Seconds that a display has to answer."""
# What names a display, and the functions that connect to it, wait for an answer where connecting
# does not, and leave it again.
DISPLAYS = {
    "WAYLAND_DISPLAY": (
        "libwayland-client.so.0",
        "wl_display_connect",
        "wl_display_roundtrip",
        "wl_display_disconnect",
    ),
    "DISPLAY": ("libX11.so.6", "XOpenDisplay", None, "XCloseDisplay"),
}
PACKAGES = {"libwayland-client.so.0": "libwayland-client0", "libX11.so.6": "libx11-6"}


def no_display() -> str:
    """Why there is no display to open a window on; empty where there is one.

    Of X11 and Wayland the server must answer and let this user in: otherwise Open3D would draw into
    a window that nobody sees, and wait until it is closed. The libraries that it connects by are
    asked, in a process that can be ended: no library gives up by itself.
    """
    if not sys.platform.startswith("linux"):
        return ""
    problems = []
    for variable in DISPLAYS:
        if not (name := os.environ.get(variable)):
            continue
        command = [sys.executable, "-I", "-S", __file__, variable]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            problems.append(f"{variable} is {name}, which has not answered in {TIMEOUT:g} seconds")
            continue
        if not done.returncode:
            return ""
        refused = f"{variable} is {name}, where no server lets this user in"
        problems.append(done.stdout.strip() or refused)  # a library that crashed says nothing
    problem = "; ".join(problems) or "neither DISPLAY nor WAYLAND_DISPLAY is set"
    return f"no display ({problem})"


def connects(variable: str) -> str:
    """What keeps this process from the display that a variable names; empty: nothing does."""
    library, connect, wait, leave = DISPLAYS[variable]
    try:
        functions = ctypes.CDLL(library)
    except OSError:
        return f"{library} is missing: apt-get install {PACKAGES[library]}"
    opened = getattr(functions, connect)
    opened.argtypes, opened.restype = [ctypes.c_char_p], ctypes.c_void_p
    connection = opened(None)
    if connection and (wait is None or getattr(functions, wait)(ctypes.c_void_p(connection)) >= 0):
        getattr(functions, leave)(ctypes.c_void_p(connection))
        return ""
    return f"{variable} is {os.environ[variable]}, where no server lets this user in"


if __name__ == "__main__":
    problem = connects(sys.argv[1])
    print(problem)
    sys.exit(bool(problem))
