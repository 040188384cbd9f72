"""Vertices, their colours and polygons of Wavefront's text form."""

from __future__ import annotations

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
    rows: list[list[float]] = []
    polygons: list[np.ndarray] = []
    words: list[str] = []
    continued = False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        line = line.partition("#")[0].rstrip()
        whole = line.removesuffix("\\")
        if not continued:
            words = []
        words += whole.split()
        # Not so comments and names of files, whose last character may be one, too.
        continued = whole != line and words[:1] in (["v"], ["f"])
        if continued or words[:1] not in (["v"], ["f"]):
            continue
        try:
            if words[0] == "v":
                rows.append([float(word) for word in words[1:]])
                continue
            named = [int(word.partition("/")[0]) for word in words[1:]]
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if 0 in named or min(named, default=0) < -len(rows):
            wrong = 0 if 0 in named else min(named)
            raise ValueError(
                f"line {number}: a face has vertex {wrong} as a corner, of {len(rows):,} before "
                "it, counted from 1"
            )
        corners = [len(rows) + corner if corner < 0 else corner - 1 for corner in named]
        polygons.append(np.array(corners, np.int64))
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
