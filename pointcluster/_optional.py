"""Packages that only some programs need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def installed_by(extra: str) -> Iterator[None]:
    """Says how to install what an import inside the block misses.

    Args:
        extra: The extra of this library that brings it, such as ``"image"``.

    Raises:
        ImportError: A package is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").split(".")[0]  # not the part of it that is imported
        raise ImportError(
            f"{package} is not installed: pip install 'pointcluster[{extra}]'", name=package
        ) from error


@contextmanager
def needed_for(use: str, packages: str, install: str | None = None) -> Iterator[None]:
    """Says what an import inside the block is needed for, and how to install it.

    Args:
        use: What needs it, such as ``"reading .pcd files"``.
        packages: What is needed, such as ``"pypcd4"``.
        install: What pip is given, where that is something else.

    Raises:
        ImportError: A package is not there, or cannot be loaded.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{use} needs {packages}: pip install {install or packages}") from error
