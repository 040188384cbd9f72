"""Files of the Point Cloud Library, `.pcd`: text, binary or compressed."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster._optional import needed_for
from pointcluster.datasets.readers.columns import fields_by_name
from pointcluster.datasets.readers.whole import check_count, whole

# In the order in which a header must have them.
_LINES = (b"FIELDS", b"SIZE", b"TYPE", b"COUNT", b"WIDTH", b"HEIGHT", b"POINTS", b"DATA")


def read_pcd(path: Path, label: str | None = None) -> dict[str, np.ndarray]:
    """Read the points of a file, whose fields mean what :func:`fields_by_name` says.

    Raises:
        ImportError: pypcd4 is not installed.
        OSError: The file cannot be read.
        ValueError: It is damaged, has no x, y and z, or no such field.
    """
    with needed_for("reading .pcd files", "pypcd4"):
        from pypcd4 import PointCloud
    data = path.read_bytes()
    with whole(path):
        header, body = _split(data)
        _check_header(header, body)
        file = io.BytesIO(b"\n".join([*header, body]))
        cloud: Any = PointCloud.from_fileobj(io.BufferedReader(file))
        columns = {name: cloud.pc_data[name] for name in cloud.pc_data.dtype.names}
        packed = next((name for name in ("rgb", "rgba") if name in columns), None)
        if packed is not None:
            columns |= _unpacked(packed, columns.pop(packed), cloud.metadata.data == "ascii")
    columns = {name: np.atleast_1d(column) for name, column in columns.items()}
    for column in columns.values():
        check_count(path, cloud.points, len(column))
    return fields_by_name(path, columns, label)


def _unpacked(name: str, column: np.ndarray, text: bool) -> dict[str, np.ndarray]:
    """Red, green and blue of colours in four bytes each; none where all are black."""
    if column.dtype.itemsize != 4:
        raise ValueError(f"{name} has {column.dtype.itemsize} bytes, expected 4")
    # Whatever their type is called: blue, green, red and the last one.
    word = np.array(column).ravel().view("<u4")
    if column.dtype.kind == "f":
        # Not a number: no colour. The bytes of an opaque colour are no number, too.
        word = np.where(np.isnan(column.ravel()) if text else word == 0x7FC00000, 0, word)
    if not word.any():
        return {}
    return {
        key: (word >> shift & 255).astype(np.uint8)
        for key, shift in (("r", 16), ("g", 8), ("b", 0))
    }


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The header as newer writers have it, and what follows, in text one space between numbers.

    Before version .7, COUNT could be left out or, for one, be 0; WIDTH and POINTS say the same.
    """
    head: dict[bytes, list[bytes]] = {}
    file = io.BytesIO(data)
    for line in file:
        words = line.split()
        if words and not words[0].startswith(b"#"):
            head[words[0].upper()] = words[1:]
            if words[0].upper() == b"DATA":
                break
    head.setdefault(b"FIELDS", head.get(b"COLUMNS", []))
    head.setdefault(b"COUNT", [b"1"] * len(head[b"FIELDS"]))
    head[b"COUNT"] = [b"1" if count == b"0" else count for count in head[b"COUNT"]]
    head.setdefault(b"HEIGHT", [b"1"])
    if b"WIDTH" in head:
        size = math.prod(int(head[key][0]) for key in (b"WIDTH", b"HEIGHT"))
        head.setdefault(b"POINTS", [b"%d" % size])
    head.setdefault(b"WIDTH", head.get(b"POINTS", []))
    head[b"DATA"] = [word.lower() for word in head.get(b"DATA", [])]
    if lacking := next((key for key in _LINES if not head.get(key)), None):
        raise ValueError(f"its header has no {lacking.decode()}")
    body = data[file.tell() :]
    if head[b"DATA"] == [b"ascii"]:
        body = b"\n".join(b" ".join(row.split()) for row in body.splitlines() if row.strip())
    return [b"VERSION .7", *(b" ".join([key, *head[key]]) for key in _LINES)], body


def _check_header(lines: list[bytes], body: bytes) -> None:
    """Compare what a header announces with the file's size, before memory is taken for it."""
    from pypcd4 import Encoding, MetaData

    header = MetaData.parse_header([line.decode() for line in lines])
    size = sum(map(len, lines)) + len(body)
    if sum(header.count) > size:
        raise ValueError(f"{sum(header.count):,} numbers a point announced in {size:,} bytes")
    sizes = zip(header.fields, header.size, header.count, strict=False)
    width, room = sum(size * count for _, size, count in sizes), len(body)
    if header.data == Encoding.ASCII or not header.points:
        return
    if header.data != Encoding.BINARY:
        packed, block = struct.unpack_from("<II", body)
        packed = min(packed, room - 8)
        if block > 88 * packed:  # LZF makes of three bytes at most 264
            raise ValueError(f"{block:,} bytes announced in {packed:,} compressed ones")
        room = block
    if header.points * width > room:
        raise ValueError(f"it announces {header.points:,} points and holds {room // width:,}")
