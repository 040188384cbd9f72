"""Elements of Stanford's PLY, text or binary, with lists of any length."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

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
Lengths = tuple[int, ...]  # of the lists of a row
Tables = list[tuple[np.ndarray, np.ndarray]]  # numbers of rows, and what they hold


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
    """Rows of bytes, one after another; those whose lists have the same lengths are one table."""

    def __init__(self, body: bytes, order: Any) -> None:
        self.body, self.order, self.at = body, order, 0

    def element(self, name: str, count: int, properties: list[Property]) -> dict:
        """The columns of an element."""
        if not count or not properties:
            return {each.name: np.zeros(0, each.kind) for each in properties}
        layout = _Layout(properties)
        first = layout.row(self.body, self.at, self.order)
        tables = [] if first is None else self._alike(count, properties, first[0])
        tables = tables or self._unlike(name, count, properties, layout)
        return {
            each.name: _column(each, str(number), count, tables)
            for number, each in enumerate(properties)
        }

    def _alike(self, count: int, properties: list[Property], lengths: Lengths) -> Tables:
        """All rows at once, where their lists are as long as those of the first."""
        kind = self._type(properties, lengths)
        if count * kind.itemsize > len(self.body) - self.at:
            return []
        table = np.frombuffer(self.body, kind, count, self.at)
        for number, length in enumerate(lengths):
            if (table[f"length {number}"] != length).any():
                return []
        self.at += table.nbytes
        return [(np.arange(count), table)]

    def _unlike(self, name: str, count: int, properties: list[Property], layout: _Layout) -> Tables:
        """Rows of each form, found one by one."""
        forms: dict[Lengths, tuple[array, array]] = {}
        for number in range(count):
            row = layout.row(self.body, self.at, self.order)
            if row is None:
                raise ValueError(f"{count:,} of {name} announced, {number:,} there")
            numbers, starts = forms.setdefault(row[0], (array("q"), array("q")))
            numbers.append(number)
            starts.append(self.at)
            self.at = row[1]
        data, tables = np.frombuffer(self.body, np.uint8), []
        for lengths, (numbers, starts) in forms.items():
            kind = self._type(properties, lengths)
            rows = sliding_window_view(data, kind.itemsize)[np.array(starts)]
            tables.append((np.array(numbers), rows.view(kind)[:, 0]))
        return tables

    def _type(self, properties: list[Property], lengths: Lengths) -> np.dtype:
        """The type of a row whose lists have these lengths."""
        left, fields = list(lengths), list[tuple[str, np.dtype, tuple[int, ...]]]()
        for number, each in enumerate(properties):
            shape = tuple[int, ...]()
            if each.prefix is not None:
                place = len(lengths) - len(left)
                fields.append((f"length {place}", each.prefix.newbyteorder(self.order), ()))
                shape = (left.pop(0),)
            fields.append((str(number), each.kind.newbyteorder(self.order), shape))
        return np.dtype(fields)


class _Layout:
    """Where in a row its lists begin, by what is before them."""

    def __init__(self, properties: list[Property]) -> None:
        self.lists: list[tuple[int, int, bool, int]] = []  # gap, bytes of length, signed, of number
        self.tail = 0  # behind the last one
        for each in properties:
            if each.prefix is None:
                self.tail += each.kind.itemsize
                continue
            signed = each.prefix.kind == "i"
            self.lists.append((self.tail, each.prefix.itemsize, signed, each.kind.itemsize))
            self.tail = 0

    def row(self, body: bytes, at: int, order: str) -> tuple[Lengths, int] | None:
        """Lengths of a row's lists, and where it ends; none where the file ends before."""
        lengths = []
        for gap, prefix, signed, size in self.lists:
            start = at + gap + prefix
            number = body[at + gap : start]
            length = int.from_bytes(number, "big" if order == ">" else "little", signed=signed)
            at = start + length * size
            if length < 0 or at > len(body):
                return None
            lengths.append(length)
        at += self.tail
        return (tuple(lengths), at) if at <= len(body) else None


def _column(each: Property, key: str, count: int, tables: Tables) -> np.ndarray | list[np.ndarray]:
    """A property of all rows."""
    if len(tables) == 1:
        return tables[0][1][key].astype(each.kind)
    if each.prefix is None:
        column = np.empty(count, each.kind)
        for rows, table in tables:
            column[rows] = table[key]
        return column
    lists = [np.zeros(0, each.kind)] * count
    for rows, table in tables:
        for row, numbers in zip(rows, table[key].astype(each.kind), strict=True):
            lists[row] = numbers
    return _table(lists)


def _table(lists: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Lists as a table, where all are of one length."""
    return np.stack(lists) if len({len(numbers) for numbers in lists}) == 1 else lists


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
    """Numbers of lists of words."""
    numbers = _numbers([word for row in rows for word in row], kind)
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return _table(np.split(numbers, ends[:-1])) if rows else []
