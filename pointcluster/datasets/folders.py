"""What data sets in one folder a class share, of pictures or of scans."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without those that begin with a dot."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def class_folders(root: Path, suffixes: tuple[str, ...], usual: str) -> list[str]:
    """Sorted names of the folders in a folder, of which there must be some.

    What they should hold, files of these suffixes, the ``usual`` one first, is for the message.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: It has none.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder")
    if not (found := subfolders(root)):
        files = files_of(root, suffixes)[:1]
        only = f", only files such as {files[0]}" if files else ""
        raise ValueError(
            f"{root} has no class folders{only}: expected {root / 'CLASS'}/*{usual}, or another "
            f"of {' '.join(suffixes)}"
        )
    return found


def files_of(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Sorted names of the files in a folder that end so, in upper or lower case.

    Names that begin with a dot are passed over.
    """
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(suffixes)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def files_below(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths, below a folder, of all files in it and in its folders that end so.

    Links are followed, but for those back to where they lie; one that leads nowhere counts as the
    file that it is called. Names that begin with a dot are passed over.
    """
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        folders[:] = [] if place in seen else [n for n in folders if not n.startswith(".")]
        if place not in seen:
            inside = Path(folder).relative_to(root)
            for name in names:
                if name.lower().endswith(suffixes) and not name.startswith("."):
                    yield (inside / name).as_posix()
        seen.add(place)


def folders_of(names: Sequence[str]) -> str:
    """The folders that some files lie in, as a message names them."""
    return listed(sorted({os.path.dirname(name) or "the root itself" for name in names}))


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_readable(
    places: Iterator[int], read: Callable[[int], Any], unreadable: set[int], *, skip: bool
) -> tuple[int, Any] | None:
    """The first of some items that can be read, with its place; ``None`` where none can.

    Args:
        places: Where items are looked for, in this order.
        read: Reads one, and raises a ``ValueError`` where it cannot be read.
        unreadable: Places that are known not to be readable; others are added.
        skip: Whether to warn and to go on where one cannot be read, instead of raising.
    """
    for place in places:
        if place in unreadable:
            continue
        try:
            return place, read(place)
        except ValueError as error:
            if not skip:
                raise
            unreadable.add(place)
            warnings.warn(f"skipped: {error}", stacklevel=3)
    return None
