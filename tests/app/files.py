"""Files of every kind, whole and broken, for the tests of the page."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from .conftest import blob

NAN = np.vstack([blob(), [[np.nan, 0, 0]]])


class Trap:
    """An object that does something when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Trap, "ran", True)


def png(width=30, height=20):
    file = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


def bomb(side=30_000):
    """A small PNG that claims to be enormous."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def ply(points, announced=None):
    head = ["ply", "format ascii 1.0", f"element vertex {announced or len(points)}"]
    head += [f"property float {axis}" for axis in "xyz"] + ["end_header"]
    return "\n".join([*head, *(" ".join(map(str, row)) for row in points), ""]).encode()


def huge_npy():
    """A header that announces far more numbers than there are."""
    head = npy(np.zeros((1, 3), np.float32))
    return head.replace(b"(1, 3)", b"(2000000000, 3)")[: len(head)]
