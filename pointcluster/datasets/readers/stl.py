"""Triangles of stereolithography files, `.stl`, text or binary."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np


def read_stl(data: bytes) -> dict:
    """Read the triangles; what may follow those of a binary file is passed over.

    Shapes:
        ``pos [V, 3]``, ``polygons [F, 3]``.

    Raises:
        ImportError: trimesh is not installed.
        ValueError: The file ends early.
    """
    import trimesh

    # "solid" begins binary ones, too.
    if len(data) < 84 or b"facet" in data[:2048].lower():
        begun = len(re.findall(rb"(?i)\bfacet\s+normal\b", data))
        ended = len(re.findall(rb"(?i)\bendfacet\b", data))
        if begun != ended:
            raise ValueError(f"it is cut off: {begun:,} facets begin and {ended:,} end")
        if begun and b"endsolid" not in data.lower():
            raise ValueError("it is cut off: it does not end with endsolid")
    else:
        (triangles,) = struct.unpack_from("<I", data, 80)
        if triangles > (len(data) - 84) // 50:
            raise ValueError(f"{triangles:,} triangles announced, {(len(data) - 84) // 50:,} there")
        data = data[: 84 + 50 * triangles]
    mesh: Any = trimesh.load_mesh(io.BytesIO(data), file_type="stl", process=False)
    return {"pos": np.asarray(mesh.vertices), "polygons": np.asarray(mesh.faces)}
