"""What a user gave to look at: a picture or a scan, as it came."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from pointcluster.datasets.readers.points import MESHES, TEXTS

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Not .pcd and .laz: they are compressed, so the size of a file does not bound the memory it takes.
SCANS = (*MESHES, ".las", ".npy", *TEXTS)


class Source(NamedTuple):
    """A picture or a scan before any network's preprocessing."""

    name: str
    """What it is called on the page."""
    kind: str
    """`"picture"` or `"scan"`."""
    content: Any
    """The bytes of an uploaded file; of an example PIL's picture or PyG's Data."""


def uploaded(path: str | os.PathLike[str], max_bytes: int) -> Source:
    """Take an uploaded file; nothing of it is decoded yet.

    Args:
        path: Where the upload lies.
        max_bytes: The largest one that is taken.

    Raises:
        OSError: It cannot be read.
        ValueError: Its suffix is unknown, it is empty or too large. The message names it without
            its folder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURES + SCANS:
        packed = " Unpack it first." if suffix in (".laz", ".pcd", ".gz", ".zip") else ""
        raise ValueError(
            f"{path.name} is of a kind that is not taken here.{packed} Pictures: "
            f"{' '.join(PICTURES)}. Scans: {' '.join(SCANS)}."
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(
            f"{path.name} has {size / 1e6:,.1f} MB, at most {max_bytes / 1e6:,.0f} MB are taken"
        )
    if not size:
        raise ValueError(f"{path.name} is empty")
    kind = "picture" if suffix in PICTURES else "scan"
    return Source(path.name, kind, path.read_bytes())
