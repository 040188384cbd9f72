"""Meshes of a scene in glTF's binary form."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MOST = 1 << 22
"""Numbers that a small file may unfold to, by instances of a mesh: a larger one to 8 a byte."""
COST = 256
"""Numbers that one instance of a part counts as, even if it is empty."""
COMPRESSED = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"}
REFUSED = {*COMPRESSED, "EXT_mesh_gpu_instancing"}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6


def read_glb(data: bytes) -> dict:
    """Read all meshes of a scene as one, where its nodes put them; looks but colours are ignored.

    Colours count where all vertices have them.

    Shapes:
        ``pos [V, 3]``, ``color [V, 3]`` from 0 to 1, ``polygons [T, 3]``.

    Raises:
        ValueError: It is damaged, compressed, kept in other files, or unfolds to far more than the
            file's size.
    """
    scene = _Scene(data)
    parts = [part for mesh, matrix in scene.instances() for part in scene.primitives(mesh, matrix)]
    meshes = [part for part in parts if len(part[1])]
    parts = meshes or parts  # points beside meshes are no part of a surface
    if not parts:
        return {}
    starts = np.cumsum([0, *(len(pos) for pos, _, _ in parts)])
    out = {"pos": np.concatenate([pos for pos, _, _ in parts])}
    out["polygons"] = np.concatenate(
        [face + start for (_, face, _), start in zip(parts, starts[:-1], strict=True)]
    )
    colors = [color for _, _, color in parts if color is not None]
    if len(colors) == len(parts):
        out["color"] = np.concatenate(colors)
    return out


class _Scene:
    """The tables of a file, read when they are asked for."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", data)
        if magic != b"glTF" or version != 2:
            raise ValueError("it does not begin with glTF, version 2")
        if length > len(data):
            raise ValueError(f"{length:,} bytes announced, {len(data):,} there")
        chunks: dict[bytes, bytes] = {}
        at = 12
        while at + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, at)
            if at + 8 + size > len(data):
                raise ValueError(f"a part of {size:,} bytes announced at {at:,} of {len(data):,}")
            chunks.setdefault(kind, data[at + 8 : at + 8 + size])
            at += 8 + size
        self.tree: Any = json.loads(chunks[b"JSON"])
        self.binary, self.size = chunks.get(b"BIN\0", b""), len(data)
        self.most = self.left = max(MOST, 8 * len(data))
        self.read: dict[tuple, np.ndarray] = {}
        needed = set(self.tree.get("extensionsRequired", ())) & REFUSED
        if needed:
            raise ValueError(f"its meshes need {', '.join(sorted(needed))}, which is not read")

    def rows(self, table: str) -> list[Any]:
        """A table by its name."""
        found = self.tree.get(table, [])
        return found if isinstance(found, list) else []

    def row(self, table: str, index: Any) -> Any:
        """A row of a table."""
        rows = self.rows(table)
        if not isinstance(index, int) or not 0 <= index < len(rows):
            raise ValueError(f"there is no number {index} in its {len(rows)} {table}")
        return rows[index]

    def instances(self) -> list[tuple[Any, np.ndarray]]:
        """Every mesh that a node of the scene has, and where it puts it."""
        nodes = self.rows("nodes")
        if not nodes:
            return [(mesh, np.eye(4)) for mesh in self.rows("meshes")]
        scenes = self.rows("scenes")
        if scenes:
            roots = self.row("scenes", self.tree.get("scene", 0)).get("nodes", [])
        else:
            below = {child for node in nodes for child in node.get("children", ())}
            roots = [number for number in range(len(nodes)) if number not in below]
        found, seen = [], set()
        stack = [(root, np.eye(4)) for root in reversed(roots)]
        while stack:
            number, matrix = stack.pop()
            node = self.row("nodes", number)
            if number in seen:
                raise ValueError(f"node {number} is below two nodes, or below itself")
            seen.add(number)
            matrix = matrix @ _matrix(node)
            if "mesh" in node:
                found.append((self.row("meshes", node["mesh"]), matrix))
            stack += [(child, matrix) for child in reversed(node.get("children", []))]
        return found

    def primitives(self, mesh: Any, matrix: np.ndarray) -> list[tuple]:
        """Positions, triangles and colours of a mesh's parts."""
        found = []
        for part in mesh.get("primitives", []):
            mode, attributes = part.get("mode", TRIANGLES), part.get("attributes", {})
            if mode not in (POINTS, TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
                continue  # lines
            plain = "bufferView" in self.row("accessors", attributes["POSITION"])
            if COMPRESSED & set(part.get("extensions", {})) and not plain:
                raise ValueError("its meshes are compressed, which is not read")
            pos = self.accessor(attributes["POSITION"], 3)
            color = None
            if "COLOR_0" in attributes:
                color = self.accessor(attributes["COLOR_0"], None, unit=True)[:, :3].clip(0, 1)
                if len(color) != len(pos):
                    raise ValueError(f"{len(pos):,} vertices have {len(color):,} colours")
            index = np.arange(len(pos))
            if "indices" in part:
                index = self.accessor(part["indices"], 1)[:, 0].astype(np.int64)
                if len(index) and not 0 <= index.min() <= index.max() < len(pos):
                    raise ValueError(
                        f"a face has vertex {index.max()} as a corner, of {len(pos):,} from 0"
                    )
            corners = len(index) // 3 if mode == TRIANGLES else len(index)
            self.count(COST + 3 * (corners + min(len(index), len(pos))))
            if "indices" in part:  # parts may share a table of which each has some vertices
                used, index = np.unique(index, return_inverse=True)
                pos, color = pos[used], None if color is None else color[used]
            pos = pos @ matrix[:3, :3].T + matrix[:3, 3]
            found.append((pos, _triangles(index, mode), color))
        return found

    def count(self, numbers: int) -> None:
        """Count numbers before memory is taken for them."""
        self.left -= numbers
        if self.left < 0:
            raise ValueError(
                f"its meshes unfold to far more than its {self.size:,} bytes, expected at most "
                f"{self.most:,} numbers: write it with fewer instances of a mesh"
            )

    def accessor(self, number: Any, width: int | None, *, unit: bool = False) -> np.ndarray:
        """The numbers of an accessor as float64, whole ones that are normalised as their share."""
        key = number, width, unit
        if key not in self.read:
            self.read[key] = self._accessor(number, width, unit)
        return self.read[key]

    def _accessor(self, number: Any, width: int | None, unit: bool) -> np.ndarray:
        about = self.row("accessors", number)
        kind = np.dtype(KINDS[about["componentType"]])
        wide, count = WIDTHS[about["type"]], about["count"]
        if width not in (None, wide) or not isinstance(count, int) or count < 0:
            raise ValueError(f"accessor {number} has {count} of {about['type']}")
        self.count(count * wide)
        if "bufferView" in about:
            table = self.view(about["bufferView"], about.get("byteOffset", 0), count, wide, kind)
        else:
            table = np.zeros((count, wide), kind)
        if "sparse" in about:
            table, sparse = table.copy(), about["sparse"]
            some, at, to = sparse["count"], sparse["indices"], sparse["values"]
            places = np.dtype(KINDS[at["componentType"]])
            rows = self.view(at["bufferView"], at.get("byteOffset", 0), some, 1, places)[:, 0]
            values = self.view(to["bufferView"], to.get("byteOffset", 0), some, wide, kind)
            if len(rows) and rows.max() >= count:
                raise ValueError(f"accessor {number} changes row {rows.max()} of {count:,}")
            table[rows.astype(np.int64)] = values
        out = table.astype(np.float64)
        if kind.kind != "f" and (about.get("normalized") or unit):
            out = np.maximum(out / np.iinfo(kind).max, -1)
        return out

    def view(self, number: Any, offset: int, count: int, wide: int, kind: np.dtype) -> np.ndarray:
        """A table of numbers in the file's binary part."""
        view = self.row("bufferViews", number)
        buffer = view.get("buffer", 0)
        if "uri" in self.row("buffers", buffer) or buffer != 0:  # the first is the binary part
            raise ValueError("its numbers are outside of its binary part, which is not read")
        start, length = view.get("byteOffset", 0), view["byteLength"]
        row = kind.itemsize * wide
        step = view.get("byteStride") or row
        end = offset + (count - 1) * step + row if count else 0
        if min(start, offset, length) < 0 or step < row or end > length:
            raise ValueError(f"{count:,} rows of {row} bytes announced in {length:,} bytes")
        if start + length > len(self.binary):
            raise ValueError(f"{start + length:,} bytes announced, {len(self.binary):,} there")
        place = (step, kind.itemsize)
        return np.ndarray((count, wide), kind, self.binary, start + offset, place)


def _matrix(node: Any) -> np.ndarray:
    """Where a node puts what is below it. [4, 4]"""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", [0, 0, 0, 1]), np.float64)
    turn = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    out = np.eye(4)
    out[:3, :3] = turn * np.array(node.get("scale", [1, 1, 1]), np.float64)
    out[:3, 3] = node.get("translation", [0, 0, 0])
    return out


def _triangles(index: np.ndarray, mode: int) -> np.ndarray:
    if mode == POINTS or len(index) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == TRIANGLES:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        first = np.full(len(index) - 2, index[0])
        return np.stack([first, index[1:-1], index[2:]], axis=1)
    three = np.stack([index[:-2], index[1:-1], index[2:]], axis=1)
    three[1::2] = three[1::2, [1, 0, 2]]
    return three
