"""Scans as segmentation takes them: in pieces, with what was measured at every point."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster.datasets.readers.las import open_las
from pointcluster.datasets.readers.points import TABLES, read_points
from pointcluster.datasets.readers.whole import check_count, whole

MEASURED = ("intensity", "return_number", "number_of_returns")
PIECE = 1_000_000
"""Points that are read at once."""
UNITS = {"metre": 1.0, "foot": 0.3048, "us-foot": 1200 / 3937}
"""Metres of a unit of length."""
LAS = (".las", ".laz")


class ScanFile:
    """A scan on disk, whose points are read in pieces.

    Of ``.las`` and ``.laz`` no more than a piece is held; other files are read as a whole, by
    :func:`pointcluster.datasets.read_points`.

    Args:
        path: The file.
        unit: What its coordinates are in, ``"metre"``, ``"foot"`` or ``"us-foot"``; ``None``: as
            the file says, and metres where it does not. Positions are in metres in any case.
        columns: What the columns of a table are, as in :func:`read_points`.

    Attributes:
        path: The file.
        num_points: Its points.
        origin: What is taken from positions, in metres, float64; they keep all digits of the file.
        said_unit: The unit that the file says, or ``None``.

    Raises:
        ImportError, OSError, ValueError: As :func:`read_points`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        unit: str | None = None,
        columns: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.is_las = self.path.suffix.lower() in LAS
        if unit not in (None, *UNITS):
            raise ValueError(f"unit is {unit!r}, expected one of {', '.join(UNITS)}")
        self._whole: dict[str, np.ndarray] | None = None
        self.said_unit: str | None = None
        if self.is_las:
            with open_las(self.path) as reader:
                self.header: Any = reader.header
            self.num_points = int(self.header.point_count)
            self.said_unit = unit_of(self.header)
            if self.said_unit == "degree" and unit is None:
                raise ValueError(
                    f"{self.path} is in degrees of longitude and latitude, as it says: project it "
                    "to metres first, or say with the unit what its coordinates are"
                )
            low = np.nan_to_num(np.asarray(self.header.mins, np.float64))
        else:
            table = self.path.suffix.lower() in TABLES
            data = read_points(self.path, columns=columns if table else None)
            arrays = {key: data[key].numpy() for key in ("color", "normal", "label") if key in data}
            pos = data.pos.numpy().astype(np.float64) + np.array(data.origin)
            self._whole = {"pos": pos, **arrays}
            self.num_points, low = len(pos), pos.min(axis=0)
        self.scale = UNITS[unit or self.said_unit or "metre"]
        if not self.num_points:
            raise ValueError(f"{self.path} holds no points")
        self.origin = tuple(float(value) for value in np.floor(low * self.scale))

    def pieces(self, size: int = PIECE) -> Iterator[dict[str, np.ndarray]]:
        """Some points after the others, in the file's order.

        Shapes and units:
            ``pos [n, 3]`` float64, in metres from ``origin``, and, of what the file has,
            ``intensity``, ``return_number``, ``number_of_returns`` and ``label`` ``[n]``,
            ``color`` from 0 to 1 and ``normal`` ``[n, 3]``.
        """
        origin = np.array(self.origin)
        if self._whole is not None:
            for start in range(0, self.num_points, size):
                out = {key: array[start : start + size] for key, array in self._whole.items()}
                yield out | {"pos": out["pos"] * self.scale - origin}
            return
        for piece in las_pieces(self.path, size):
            pos = np.column_stack([piece.x, piece.y, piece.z]) * self.scale - origin
            if not np.isfinite(pos).all():
                raise ValueError(f"{self.path}: a position is NaN or infinite")
            out = {"pos": pos, "label": np.asarray(piece.classification, np.int64)}
            for name in MEASURED:
                out[name] = np.asarray(piece[name])
            if {"red", "green", "blue"} <= set(piece.point_format.dimension_names):
                color = np.column_stack([piece.red, piece.green, piece.blue])
                out["color"] = (color / 65535).astype(np.float32)
            yield out


def las_pieces(path: Path, size: int = PIECE) -> Iterator[Any]:
    """The points of a file as laspy reads them, some after the others.

    Raises:
        ValueError: The file is damaged, or ends early.
    """
    with open_las(path) as reader:
        with whole(path):
            pieces = reader.chunk_iterator(size)
        count = 0
        while True:
            with whole(path):
                piece = next(pieces, None)
            if piece is None or not len(piece):
                break
            count += len(piece)
            yield piece
        check_count(path, reader.header.point_count, count)


def unit_of(header: Any) -> str | None:
    """The unit of length that a LAS header's records say, WKT's or GeoTIFF's; `None`: none."""
    for record in [*header.vlrs, *(header.evlrs or [])]:
        if record.user_id.strip("\0 ") != "LASF_Projection":
            continue
        if record.record_id == 2112:
            text = getattr(record, "string", "")
            if "PROJC" not in text:
                if "GEOGC" in text:
                    return "degree"
                continue
            projected = text[text.find("PROJC") :].split("VERT")[0]
            # The last unit of length is that of the axes.
            numbers = re.findall(r'UNIT\["[^"]*",\s*([0-9.eE+-]+)', projected)
            for metres in reversed([float(each) for each in numbers]):
                for name, value in UNITS.items():
                    if abs(value - metres) < 1e-7:
                        return name
        if record.record_id == 34735:
            codes = {9001: "metre", 9002: "foot", 9003: "us-foot"}
            for key in getattr(record, "geo_keys", []):
                if key.id == 3076 and key.value_offset in codes:  # ProjLinearUnitsGeoKey
                    return codes[key.value_offset]
    return None
