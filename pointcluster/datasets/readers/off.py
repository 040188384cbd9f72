"""Meshes and points in the text form of OFF, with the normals and colours it may hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# ST: texture coordinates, C: colours, N: normals; 4 and n are of other dimensions than three.
_HEADER = re.compile(rb"(ST)?(C)?(N)?(4)?(n)?OFF(?![A-Za-z])\s*")


def read_off(data: bytes) -> dict:
    """Read the text of an OFF file.

    Vertices have the normals and colours that the header's first word announces (``NOFF``,
    ``COFF``, ``CNOFF``; texture coordinates of ``STOFF`` are passed over). Faces have colours where
    three or four numbers follow the corners of each.

    Shapes:
        ``pos [V, 3]`` and, where they are there, ``normal`` and ``color [V, 3]``, ``polygons``,
        corners ``[F, M]`` or a list of them, and ``face_color [F, 3]``; colours as the file counts
        them.

    Raises:
        ValueError: It is none, ends early, or is of a form that is not read.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = [line.split(b"#")[0].strip() for line in data.splitlines()]
    lines = [line for line in lines if line]
    header = _HEADER.match(lines[0]) if lines else None
    # The numbers may stand in the same line as "OFF".
    start = 1 if header and header.end() < len(lines[0]) else 2
    counts = (lines[0][header.end() :] if start == 1 else b" ".join(lines[1:2])) if header else b""
    if header and counts.upper().startswith(b"BINARY"):
        raise ValueError("it is in the binary form of OFF, expected the text form")
    numbers = re.match(rb"(\d+)\s+(\d+)(\s|$)", counts)
    if header is None or numbers is None:
        raise ValueError("it does not begin with OFF and the numbers of vertices and faces")
    texture, colored, normals, four, other = header.groups()
    if four or other:
        raise ValueError("its vertices have more or fewer than three coordinates")
    vertices, faces = int(numbers[1]), int(numbers[2])
    if len(lines) - start < vertices + faces:
        raise ValueError(
            f"{vertices + faces:,} vertices and faces announced, {len(lines) - start:,} there"
        )
    out: dict = {"pos": np.zeros((0, 3))}
    if vertices:
        columns = None if normals or colored else range(3)
        table = _table(lines[start : start + vertices], columns)
        before = 6 if normals else 3
        after = table.shape[1] - before - (2 if texture and not columns else 0)
        if after < 0 or (colored and after not in (3, 4)):
            raise ValueError(f"its vertices have {table.shape[1]} numbers, too few or too many")
        out["pos"] = table[:, :3]
        if normals:
            out["normal"] = table[:, 3:6]
        if colored:
            out["color"] = table[:, before : before + 3]
    if faces:
        polygons, colors = _faces(lines[start + vertices : start + vertices + faces])
        out["polygons"] = polygons
        if colors is not None:
            out["face_color"] = colors
    return out


def _table(lines: Sequence[bytes], columns: Sequence[int] | None = None) -> np.ndarray:
    rows = [line.decode("ascii") for line in lines]
    return np.loadtxt(rows, comments=None, usecols=columns, ndmin=2)


def _faces(
    lines: Sequence[bytes],
) -> tuple[np.ndarray | Sequence[np.ndarray], np.ndarray | None]:
    """Corners of each face, and the colours where all have one."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, line in enumerate(lines):
        words = line.split()
        groups.setdefault((int(words[0]), len(words)), []).append(row)
    corners: list[np.ndarray] = [np.zeros(0, np.int64)] * len(lines)
    colors = np.zeros((len(lines), 3))
    for (count, width), rows in groups.items():
        if not 0 <= count < width:
            raise ValueError(f"a face announces {count} corners and has {width - 1} numbers")
        table = _table([lines[row] for row in rows])
        found = table[:, 1 : 1 + count]
        if not (np.abs(found) < 2**53).all() or (found % 1).any():
            raise ValueError("a corner of a face is no whole number")
        found = found.astype(np.int64)
        if width - 1 - count in (3, 4):
            colors[rows] = table[:, 1 + count : 4 + count]
        for row, each in zip(rows, found, strict=True):
            corners[row] = each
    colored = all(width - 1 - count in (3, 4) for count, width in groups)
    same = found if len(groups) == 1 else corners
    return same, colors if colored else None
