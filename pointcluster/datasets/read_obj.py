"""Vertices, their colours and polygons of Wavefront's text form."""

from __future__ import annotations

import re

import numpy as np


def read_obj(data: bytes) -> dict:
    """Read the vertices and faces of an OBJ file; what belongs to looks is passed over.

    Lines may be indented, continued by a backslash, and end in comments; a corner counts vertices
    from 1, or, negative, back from the last one read so far. A vertex is x y z, perhaps a weight
    (passed over), perhaps red green blue; colours count where all vertices have them.

    Shapes:
        ``pos [V, 3]``, ``color [V, 3]`` as the file counts it, ``polygons``, a list of corners.

    Raises:
        ValueError: A line is none of a vertex or face, or a corner is not there.
    """
    text = data.decode("utf-8-sig", errors="replace")
    text = re.sub(r"\\[ \t]*\r?\n", " ", text)
    rows: list[list[float]] = []
    polygons: list[np.ndarray] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words or words[0] not in ("v", "f"):
            continue
        try:
            if words[0] == "v":
                rows.append([float(word) for word in words[1:]])
                continue
            corners = np.array([int(word.partition("/")[0]) for word in words[1:]], np.int64)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        corners = np.where(corners < 0, len(rows) + corners, corners - 1)
        if (corners < 0).any():
            raise ValueError(
                f"line {number}: a face has vertex {words[1 + int(np.argmin(corners))]} as a "
                f"corner, of {len(rows):,} before it, counted from 1"
            )
        polygons.append(corners)
    if not rows:
        return {}
    widths = {len(row) for row in rows}
    if not widths <= {3, 4, 6, 7}:
        raise ValueError(
            f"a vertex has {min(widths - {3, 4, 6, 7})} numbers, expected 3, 4, 6 or 7"
        )
    out = {"pos": np.array([row[:3] for row in rows]), "polygons": polygons}
    if widths <= {6, 7}:
        out["color"] = np.array([row[-3:] for row in rows])
    return out
