"""Open3D, loaded late and where the machine lacks what it needs, with a way to get it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libgomp.so.1": "libgomp1",
    "libidn2.so.0": "libidn2-0",
    "libudev.so.1": "libudev1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libvulkan.so.1": "libvulkan1",
}
"""Libraries of the system that Open3D loads, and Debian's packages of them."""


def load_open3d() -> Any:
    """Import Open3D, after torch (this package has imported it): some builds crash the other way.

    A machine without `libusb-1.0`, which Open3D links for depth cameras, gets the one of the wheel
    `libusb-package`, which the extra `viz` installs.

    Raises:
        ImportError: Open3D is not installed, or misses a library of the system; the message names
            the packages to install.
    """
    _bring_libusb()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that it imports
            return importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        what = (error.name or "open3d").split(".")[0]
        raise ImportError(
            f"{what} is not installed: pip install 'pointcluster[viz]'", name=what
        ) from error
    except (ImportError, OSError) as error:  # which of them depends on the library
        raise ImportError(f"open3d does not load: {advice(str(error))}", name="open3d") from error


def advice(message: str) -> str:
    """What is missing by an error of the loader, and how to get it, in one line."""
    found = re.search(r"(lib[\w.+-]+\.so[.\d]*)", message)
    library = "libvulkan.so.1" if "vulkan" in message.lower() else found and found[1]
    if library not in PACKAGES:
        return " ".join(message.split())
    command = f"apt-get install {PACKAGES[library]}"
    if library == "libusb-1.0.so.0":
        command += ", or pip install libusb-package"
    if library == "libvulkan.so.1":
        command += " mesa-vulkan-drivers"
    return f"{library} is missing: {command}"


def _bring_libusb() -> None:
    """Load a wheel's libusb where the system has none: Open3D then finds it in the process."""
    try:
        ctypes.CDLL("libusb-1.0.so.0")
        return
    except OSError:
        pass
    spec = importlib.util.find_spec("libusb_package")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("libusb-1.0*.so*")):
            try:
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError:  # another machine's
                continue
