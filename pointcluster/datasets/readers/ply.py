"""Elements of Stanford's PLY, text or binary, with lists of any length."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pointcluster.datasets.readers.columns import (
    find_labels,
    find_three,
    named_twice,
    no_labels,
)

KINDS = {
    **dict.fromkeys(("char", "int8"), "i1"), **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"), **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"), **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"), **dict.fromkeys(("double", "float64"), "f8"),
}  # fmt: skip
ORDERS: dict[str, Any] = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
FACES, STRIPS = ("vertex_indices", "vertex_index"), "tristrips"


class Property(NamedTuple):
    """A number of an element, or a list of them."""

    name: str
    kind: np.dtype
    prefix: np.dtype | None
    """What a list's length is written as."""


class Element(NamedTuple):
    """A table of the file, as its header has it."""

    name: str
    rows: int
    properties: list[Property]


def read_ply(data: bytes, label: str | None = None) -> dict:
    """Read vertices and faces, triangle strips among them.

    Args:
        data: The file's bytes.
        label: The property of vertices or faces that holds labels; by default one that is called
            so.

    Shapes:
        ``pos [V, 3]`` and, where they are there, ``normal``, ``color [V, 3]`` as the file counts
        it, ``label [V]``; ``polygons``, corners ``[F, M]`` or a list of them, ``face_color``,
        ``face_label`` of each.

    Raises:
        ValueError: The header or a row is damaged, the file ends early, or it has no such property.
    """
    order, elements, body = _header(data, label)
    read = _Text(body) if order == "" else _Binary(body, order)
    out: dict = {}
    for name, count, properties in elements.values():
        columns = read.element(name, count, properties)
        if not count:
            continue
        if name == "vertex":
            out |= _vertices(columns, label)
        elif name == "face":
            out |= _faces(columns, label)
        elif name == STRIPS and "polygons" not in out:
            out["polygons"] = _strips(_corners(columns))
    if label is not None and not {"label", "face_label"} & out.keys():
        used = [element for element in elements.values() if element.name in ("vertex", "face")]
        raise ValueError(no_labels("", label, [p.name for e in used for p in e.properties]))
    return out


def _vertices(columns: dict, label: str | None) -> dict:
    columns = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    threes = {field: find_three(columns, field) for field in ("pos", "normal", "color")}
    if not threes["pos"]:
        raise ValueError(f"its vertices have {', '.join(columns)}, expected x, y and z")
    out = {field: np.column_stack([*three.values()]) for field, three in threes.items() if three}
    out["pos"] = out["pos"].astype(np.float64)
    if (labels := find_labels("", columns, label)) is not None:
        out["label"] = labels
    return out


def _faces(columns: dict, label: str | None) -> dict:
    out = {"polygons": _corners(columns)}
    if color := find_three(columns, "color"):
        out["face_color"] = np.column_stack([*color.values()])
    if (labels := find_labels("", columns, label)) is not None:
        out["face_label"] = labels
    return out


def _corners(columns: dict) -> np.ndarray | list[np.ndarray]:
    for name, column in columns.items():
        if name.lower() in FACES:
            return column
    raise ValueError(f"its faces have no list of corners, {FACES[0]}")


def _strips(strips: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """Triangles of strips; a corner of -1 begins another one, and every second turns round."""
    triangles = [np.zeros((0, 3), np.int64)]
    for strip in strips:
        for part in np.split(strip, np.flatnonzero(np.asarray(strip) < 0)):
            part = part[part >= 0].astype(np.int64)
            if len(part) < 3:
                continue
            three = np.stack([part[:-2], part[1:-1], part[2:]], axis=1)
            three[1::2] = three[1::2, [1, 0, 2]]
            same = (three == np.roll(three, 1, axis=1)).any(axis=1)
            triangles.append(three[~same])
    return np.concatenate(triangles)


def _header(data: bytes, label: str | None) -> tuple[str, dict[str, Element], bytes]:
    """Byte order, elements with their counts and properties, and what follows."""
    begin = re.match(rb"ply[ \t]*(\r?\n|\r)", data)
    if begin is None:
        raise ValueError("it does not begin with ply")
    end = b"\r" if begin[1] == b"\r" else b"\n"  # alone, of old Macintosh programs
    order: str | None = None
    elements: dict[str, Element] = {}
    at = begin.end()
    while at < len(data):
        stop = data.find(end, at)
        stop = len(data) if stop < 0 else stop
        line = data[at:stop].decode("utf-8", errors="replace").strip()
        at = stop + 1
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if line == "end_header":
            break
        if words[0] == "format" and len(words) == 3 and words[1] in ORDERS:
            order = ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[2].isdigit():
            if words[1] in elements:
                raise ValueError(f"it has two elements {words[1]}, expected one")
            elements[words[1]] = Element(words[1], int(words[2]), [])
        elif words[0] == "property" and elements and set(words[1:-1]) <= {*KINDS, "list"}:
            kinds = [np.dtype(KINDS[word]) for word in words[1:-1] if word != "list"]
            if len(kinds) != 1 + (words[1] == "list"):
                raise ValueError(f"its header has a line {line[:60]!r}")
            prefix = kinds[0] if len(kinds) > 1 else None
            elements[[*elements][-1]].properties.append(Property(words[-1], kinds[-1], prefix))
        else:
            raise ValueError(f"its header has a line {line[:60]!r}")
    else:
        raise ValueError("its header does not end with end_header")
    if order is None:
        raise ValueError(f"its header names none of the formats {', '.join(ORDERS)}")
    body = data[at:]
    for name, count, properties in elements.values():
        names = [each.name for each in properties]
        double = named_twice(names, label) or next((n for n in names if names.count(n) > 1), None)
        if double is not None:
            raise ValueError(f"an element has two properties {double}, expected one")
        # The least that a row takes, before memory is taken for it: in text a digit and a space.
        least = sum((each.prefix or each.kind).itemsize if order else 2 for each in properties)
        if count * max(1, least) > len(body) + 1:
            raise ValueError(f"{count:,} of {name} announced in {len(body):,} bytes")
    return order, elements, body


class _Text:
    """Rows of words, which begin and end with lines; lines without any are passed over."""

    def __init__(self, body: bytes) -> None:
        self.lines = filter(None, (line.split() for line in body.splitlines()))

    def element(self, name: str, count: int, properties: list[Property]) -> dict:
        """The columns of an element."""
        rows: list[Sequence[Any]] = []
        lists = any(each.prefix for each in properties)
        for row in range(count):
            words = next(self.lines, None)
            if words is None:
                raise ValueError(f"{count:,} of {name} announced, {row:,} there")
            if lists:
                values, end = self._values(name, words, properties)
            else:
                values, end = words, len(properties)
                self._more(words, end)
            if len(words) != end:
                raise ValueError(f"a {name} has {len(words)} numbers, expected {end}")
            rows.append(values)
        columns = zip(*rows, strict=True) if rows else [()] * len(properties)
        return {
            each.name: (_lists if each.prefix else _numbers)(column, each.kind)
            for each, column in zip(properties, columns, strict=True)
        }

    def _values(
        self, name: str, words: list[bytes], properties: list[Property]
    ) -> tuple[list[Any], int]:
        """A word or a list of words for each property, and where they end."""
        values: list[Any] = []
        at = 0
        for each in properties:
            self._more(words, at + 1)
            length = 1
            if each.prefix is not None:
                length = int(float(words[at])) if at < len(words) else -1
                at += 1
                self._more(words, at + length)
                if not 0 <= length <= len(words) - at:
                    raise ValueError(f"a {name} announces a list of {length} and is too short")
                values.append(words[at : at + length])
            else:
                values.append(words[at] if at < len(words) else b"")
            at += length
        return values, at

    def _more(self, words: list[bytes], count: int) -> None:
        """Go on with the next lines where a row has fewer words than it must have."""
        while len(words) < count and (line := next(self.lines, None)):
            words += line


class _Binary:
    """Rows of bytes, one after another."""

    def __init__(self, body: bytes, order: Any) -> None:
        self.body, self.order, self.at = body, order, 0

    def element(self, name: str, count: int, properties: list[Property]) -> dict:
        fixed = [each for each in properties if each.prefix is None]
        if len(fixed) == len(properties):
            kind = np.dtype([(each.name, each.kind.newbyteorder(self.order)) for each in fixed])
            if count * kind.itemsize > len(self.body) - self.at:
                room = (len(self.body) - self.at) // max(1, kind.itemsize)
                raise ValueError(f"{count:,} of {name} announced, {room:,} there")
            table = np.frombuffer(self.body, kind, count, self.at)
            self.at += count * kind.itemsize
            native = kind.newbyteorder("=")
            return {key: table[key].astype(native[key]) for key in kind.names or ()}
        if (alike := self._alike(count, properties)) is not None:
            return alike
        starts = {each.name: array("q") for each in properties}
        lengths = {each.name: array("q") for each in properties if each.prefix}
        at, end, body = self.at, len(self.body), self.body
        order: Any = "big" if self.order == ">" else "little"
        # (name, bytes of a number, bytes of a length, whether it may be negative)
        plan = [
            (each.name, each.kind.itemsize, each.prefix.itemsize if each.prefix else 0,
             each.prefix is not None and each.prefix.kind == "i")
            for each in properties
        ]  # fmt: skip
        for row in range(count):
            for key, size, prefix, signed in plan:
                length = 1
                if prefix:
                    if at + prefix > end:
                        raise ValueError(f"{count:,} of {name} announced, {row:,} there")
                    length = int.from_bytes(body[at : at + prefix], order, signed=signed)
                    at += prefix
                    lengths[key].append(length)
                starts[key].append(at)
                at += length * size
                if length < 0 or at > end:
                    raise ValueError(f"{count:,} of {name} announced, {row:,} there")
        self.at = at
        out: dict = {}
        for each in properties:
            kind, begin = each.kind.newbyteorder(self.order), np.array(starts[each.name], np.int64)
            if each.prefix is None:
                out[each.name] = self._at(begin, kind)
                continue
            sizes = np.array(lengths[each.name], np.int64)
            rows: list[np.ndarray] = [np.zeros(0, each.kind)] * count
            order_ = sizes.argsort(kind="stable")
            for same in np.split(order_, np.flatnonzero(np.diff(sizes[order_])) + 1):
                if not len(same) or not sizes[same[0]]:
                    continue
                step = np.arange(sizes[same[0]]) * kind.itemsize
                block = self._at(begin[same, None] + step, kind)
                for number, numbers in zip(same, block, strict=True):
                    rows[number] = numbers
                if len(same) == count:
                    out[each.name] = block
            out.setdefault(each.name, rows)
        return out

    def _alike(self, count: int, properties: list[Property]) -> dict | None:
        """All rows at once where their lists are as long as those of the first."""
        at, fields = self.at, list[tuple[str, np.dtype, tuple[int, ...]]]()
        for number, each in enumerate(properties if count else ()):
            length = 1
            if each.prefix is not None:
                prefix = each.prefix.newbyteorder(self.order)
                if at + prefix.itemsize > len(self.body):
                    return None
                length = int(np.frombuffer(self.body, prefix, 1, at)[0])
                fields.append((f"length {number}", prefix, ()))
                at += prefix.itemsize
                if length < 0:
                    return None
            shape = () if each.prefix is None else (length,)
            fields.append((f"{number}", each.kind.newbyteorder(self.order), shape))
            at += each.kind.itemsize * length
            if at > len(self.body):
                return None
        kind = np.dtype(fields)
        if not count or count * kind.itemsize > len(self.body) - self.at:
            return None
        table = np.frombuffer(self.body, kind, count, self.at)
        for name, _, _ in fields:
            if name.startswith("length") and (table[name] != table[name][0]).any():
                return None
        self.at += count * kind.itemsize
        return {
            each.name: table[f"{number}"].astype(each.kind)
            for number, each in enumerate(properties)
        }

    def _at(self, begin: np.ndarray, kind: np.dtype) -> np.ndarray:
        """Numbers that begin at these bytes."""
        data = np.frombuffer(self.body, np.uint8)
        chosen = data[begin[..., None] + np.arange(kind.itemsize)]
        return np.ascontiguousarray(chosen).view(kind)[..., 0].astype(kind.newbyteorder("="))


def _numbers(words: Sequence[bytes], kind: np.dtype) -> np.ndarray:
    """Numbers read from text, as the header's type where they fit into it."""
    column = np.array([float(word) for word in words], np.float64)
    if kind.kind == "f":
        return column
    if not np.isfinite(column).all() or (column % 1).any():
        raise ValueError("a number that must be whole is not")
    limits = np.iinfo(kind)
    inside = not column.size or (column.min() >= limits.min and column.max() <= limits.max)
    return column.astype(kind if inside else np.int64)


def _lists(rows: Sequence[list[bytes]], kind: np.dtype) -> np.ndarray | list[np.ndarray]:
    """Numbers of lists, as a table where all are of one length."""
    numbers = _numbers([word for row in rows for word in row], kind)
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return numbers.reshape(len(rows), lengths[0])
    return np.split(numbers, np.cumsum(lengths)[:-1]) if rows else []
