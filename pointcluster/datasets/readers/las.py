"""Airborne and terrestrial scans, `.las`, and compressed, `.laz`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pointcluster._optional import needed_for
from pointcluster.datasets.readers.columns import find_labels, no_labels, to_unit
from pointcluster.datasets.readers.whole import check_count, whole

PIECE = 1_000_000
"""Points at a time, so that a number of points which is wrong takes no memory."""
# What of a point LAZ compresses apart, by the number of the kind of item; and of each extra byte.
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
EXTRA_BYTES = 14


def read_las(path: Path, label: str | None = None) -> dict[str, np.ndarray]:
    """Read the points of a scan.

    Labels are those of the dimension ``label``, one of the extra bytes, too; by default of the
    classification, unless it is 0 everywhere. Colours of zeros alone count as none.

    Raises:
        ImportError: laspy is not installed, or lazrs for a `.laz` file.
        OSError: The file cannot be read.
        ValueError: It is damaged, or has no such dimension of whole numbers.
    """
    with open_las(path, read_evlrs=False) as reader, whole(path):
        announced = reader.header.point_count
        names = {name.lower(): name for name in reader.header.point_format.dimension_names}
        if label is not None and label.lower() not in names:
            raise ValueError(no_labels("", label, names.values()))
        dimension = names[(label or "classification").lower()]
        pos, labels = [np.zeros((0, 3))], [np.zeros(0, np.int64)]
        colors = [np.zeros((0, 3), np.uint16)]
        for piece in reader.chunk_iterator(PIECE):
            pos.append(np.column_stack([piece.x, piece.y, piece.z]))
            column = {dimension: np.asarray(piece[dimension])}
            if (some := find_labels("", column, dimension)) is not None:
                labels.append(some)
            if {"red", "green", "blue"} <= names.keys():
                colors.append(np.column_stack([piece.red, piece.green, piece.blue]))
        out: dict[str, Any] = {"pos": np.concatenate(pos)}
        classes, color = np.concatenate(labels), np.concatenate(colors)
        if label is not None or classes.any():
            out["label"] = classes
        if color.any():
            out["color"] = to_unit(path, color.astype(np.float64), color.dtype)
    check_count(path, announced, len(out["pos"]))
    return out


def open_las(path: Path, **options: Any) -> Any:
    """laspy's reader of a file, once what the file announces was found to fit its size.

    Raises:
        ImportError: laspy is not installed, or lazrs for a `.laz` file.
        OSError: The file cannot be opened.
        ValueError: It is damaged.
    """
    with needed_for(f"reading {path.suffix} files", "laspy and lazrs", "'laspy[lazrs]'"):
        import laspy

        if path.suffix.lower() == ".laz":
            import lazrs  # noqa: F401
    size = path.stat().st_size
    with path.open("rb") as file, whole(path):
        _check_header(file, size)
        file.seek(0)
        return laspy.open(path, laz_backend=_laz_backend(file, size), **options)


def _check_header(file: BinaryIO, size: int) -> None:
    """Compare what a header announces with the file's size, before anything is read by it."""
    head = file.read(375)
    if head[:4] != b"LASF":
        raise ValueError("it does not begin with LASF")
    header, start, records, form, length, points = struct.unpack_from("<HIIBHI", head, 94)
    if not header <= start <= size:
        raise ValueError(f"its points begin at byte {start:,}, expected {header:,} to {size:,}")
    room = start - header
    if 54 * records > room:  # what the header of each takes
        raise ValueError(f"{records:,} records of variable length announced in {room:,} bytes")
    if (head[24], head[25]) >= (1, 4):
        (points,) = struct.unpack_from("<Q", head, 247)
    if not form & 0xC0:
        if points * length > size - start:
            raise ValueError(f"{points:,} points of {length} bytes announced in {size - start:,}")
    elif size >= start + 8:  # compressed, in pieces; their table lies behind them
        file.seek(start)
        (table,) = struct.unpack("<q", file.read(8))
        if start < table <= size - 8:
            file.seek(table + 4)
            (pieces,) = struct.unpack("<I", file.read(4))
            if pieces > size:
                raise ValueError(f"{pieces:,} pieces announced in {size:,} bytes")


def _laz_backend(file: BinaryIO, size: int) -> Any:
    """What unpacks a `.laz` file within the memory that it is worth; ``None`` leaves the choice."""
    import laspy

    header = laspy.LasHeader.read_from(file)
    if not header.are_points_compressed:
        return None
    record = header.vlrs.get("LasZipVlr")[0].record_data
    _check_layers(file, size, header, record)
    (piece,) = struct.unpack_from("<I", record, 12)
    # Several threads take memory for whole pieces of the size that the file announces; the largest
    # number means that sizes differ.
    return laspy.LazBackend.Lazrs if 10_000_000 < piece < 2**32 - 1 else None


def _check_layers(file: BinaryIO, size: int, header: Any, record: bytes) -> None:
    """Compare the sizes of the layers in each piece with the piece's.

    The reader would take memory for whatever they announce, up to four gigabytes each.
    """
    import lazrs

    if not header.point_count:
        return
    (count,) = struct.unpack_from("<H", record, 32)
    items = [struct.unpack_from("<HHH", record, 34 + 6 * i) for i in range(count)]
    layers = [width if kind == EXTRA_BYTES else LAYERS.get(kind, 0) for kind, width, _ in items]
    if not all(layers):
        return  # of the first ten formats, whose pieces have no layers
    file.seek(header.offset_to_point_data)
    pieces = lazrs.read_chunk_table(file, lazrs.LazVlr(record))
    length, start = header.point_format.size, header.offset_to_point_data + 8
    sizes = struct.Struct(f"<{sum(layers)}I")
    fixed = length + 4 + sizes.size  # the first point, as it is, and the number of points
    for _, piece in pieces:
        if not fixed <= piece <= size - start:
            raise ValueError(f"a piece of {piece:,} bytes announced at byte {start:,} of {size:,}")
        file.seek(start + length + 4)
        announced = sum(sizes.unpack(file.read(sizes.size)))
        if announced > piece - fixed:
            raise ValueError(f"layers of {announced:,} bytes announced in a piece of {piece:,}")
        start += piece
