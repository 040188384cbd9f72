"""What readers share to refuse files that are damaged or end early."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Make whatever a parser raises of a damaged file the ValueError that names the file.

    Raises:
        ValueError: The block raised anything but that memory is short or a package missing.
    """
    try:
        yield
    except (MemoryError, ImportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # lazrs panics, too, which is no Exception
        raise ValueError(
            f"{path} is damaged, ends early or is no {path.suffix.lower()} file: "
            f"{error or repr(error)}"
        ) from error


def check_count(path: str | os.PathLike[str], announced: int, there: int) -> None:
    """Compare the number of points that a file announces with those that it holds.

    Raises:
        ValueError: They differ.
    """
    if announced != there:
        raise ValueError(f"{path} announces {announced:,} points and holds {there:,}")
