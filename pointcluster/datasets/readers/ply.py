"""Elements of Stanford's PLY, text or binary, with lists of any length."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pointcluster.datasets.readers.columns import (
    check_names,
    find_labels,
    find_three,
    no_labels,
)

KINDS = {
    name: np.dtype(code)
    for code, names in {
        "i1": "char int8", "u1": "uchar uint8", "i2": "short int16", "u2": "ushort uint16",
        "i4": "int int32", "u4": "uint uint32", "f4": "float float32", "f8": "double float64",
    }.items()
    for name in names.split()
}  # fmt: skip
ORDERS: dict[str, Any] = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
FACES, STRIPS = ("vertex_indices", "vertex_index"), "tristrips"
Lengths = tuple[int, ...]  # of the lists of a row
Column = np.ndarray | list[np.ndarray]


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

    Labels are those of the property ``label``, of vertices or faces; by default of one that is
    called so.

    Shapes:
        ``pos [V, 3]`` and, where they are there, ``normal``, ``color [V, 3]`` as the file counts
        it, ``label [V]``; ``polygons``, corners ``[F, M]`` or a list of them, ``face_color``,
        ``face_label`` of each.

    Raises:
        ValueError: The header or a row is damaged, the file ends early, or it has no such property.
    """
    order, elements, body = _header(data, label)
    rows = _Rows(body, order)
    out: dict = {}
    for element in elements.values():
        if not element.rows or not element.properties:
            continue
        columns = rows.columns(element)
        if element.name == "vertex":
            out |= _vertices(columns, label)
        elif element.name == "face":
            out |= _faces(columns, label)
        elif element.name == STRIPS and "polygons" not in out:
            out["polygons"] = _strips(_corners(columns))
    if label is not None and not {"label", "face_label"} & out.keys():
        used = [element for element in elements.values() if element.name in ("vertex", "face")]
        raise ValueError(no_labels("", label, [p.name for e in used for p in e.properties]))
    return out


def _vertices(columns: dict[str, Column], label: str | None) -> dict:
    numbers = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    threes = {field: find_three(numbers, field) for field in ("pos", "normal", "color")}
    if not threes["pos"]:
        raise ValueError(f"its vertices have {', '.join(numbers)}, expected x, y and z")
    out = {field: np.column_stack([*three.values()]) for field, three in threes.items() if three}
    out["pos"] = out["pos"].astype(np.float64)
    if (labels := find_labels("", numbers, label)) is not None:
        out["label"] = labels
    return out


def _faces(columns: dict, label: str | None) -> dict:
    out = {"polygons": _corners(columns)}
    if color := find_three(columns, "color"):
        out["face_color"] = np.column_stack([*color.values()])
    if (labels := find_labels("", columns, label)) is not None:
        out["face_label"] = labels
    return out


def _corners(columns: dict[str, Column]) -> Column:
    for name, column in columns.items():
        if name.lower() in FACES:
            return column
    raise ValueError(f"its faces have no list of corners, {FACES[0]}")


def _strips(strips: Column) -> np.ndarray:
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


# --- what is in the file -------------------------------------------------------------------------


def _header(data: bytes, label: str | None) -> tuple[str, dict[str, Element], bytes]:
    """Byte order, elements with their counts and properties, and what follows."""
    begin = re.match(rb"ply[ \t]*(\r?\n|\r)", data)
    if begin is None:
        raise ValueError("it does not begin with ply")
    end = rb"\r" if begin[1] == b"\r" else rb"\r?\n"  # alone, of old Macintosh programs
    last = end + rb"[ \t]*end_header[ \t]*(?:" + end + rb"|\Z)"
    head, *rest = re.split(last, data, maxsplit=1)
    if not rest:
        raise ValueError("its header does not end with end_header")
    order, known = None, KINDS.keys()
    elements: dict[str, Element] = {}
    for line in head.splitlines()[1:]:
        words = line.decode("utf-8", errors="replace").split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", word, _] if word in ORDERS:
                order = ORDERS[word]
            case ["element", name, count] if count.isdigit():
                if name in elements:
                    raise ValueError(f"it has two elements {name}, expected one")
                properties: list[Property] = []
                elements[name] = Element(name, int(count), properties)
            case ["property", kind, name] if elements and kind in KINDS:
                properties.append(Property(name, KINDS[kind], None))
            case ["property", "list", prefix, kind, name] if elements and {prefix, kind} <= known:
                properties.append(Property(name, KINDS[kind], KINDS[prefix]))
            case _:
                raise ValueError(f"its header has a line {' '.join(words)[:60]!r}")
    if order is None:
        raise ValueError(f"its header names none of the formats {', '.join(ORDERS)}")
    for element in elements.values():
        check_names("", [each.name for each in element.properties], label)
    return order, elements, rest[0]


class _Rows:
    """Rows of numbers, one after another, some of them lists that begin with their length.

    Text is read as if its numbers were written as float64; a row of it may go over several lines,
    and ends where one does.
    """

    def __init__(self, body: bytes, order: Any) -> None:
        self.body, self.order, self.at = body, order, 0
        self.ends: np.ndarray | None = None  # of the lines of text
        if order == ORDERS["ascii"]:
            lines = [line.split() for line in body.splitlines()]
            words = (float(word) for line in lines for word in line)
            self.body = np.fromiter(words, np.float64).tobytes()
            self.ends = np.cumsum([8 * len(line) for line in lines])

    def columns(self, element: Element) -> dict[str, Column]:
        """The properties of an element: numbers ``[rows]``, lists of one length as a table."""
        tables = self._tables(element)
        order = np.argsort(np.concatenate([numbers for numbers, _ in tables]))
        out: dict[str, Column] = {}
        for place, (name, kind, prefix) in enumerate(element.properties):
            parts = [_as_announced(table[f"{place}"], kind) for _, table in tables]
            if len(parts) == 1:
                out[name] = parts[0]
            elif prefix is None:
                out[name] = np.concatenate(parts)[order]
            else:
                lists = [numbers for part in parts for numbers in part]
                out[name] = [lists[row] for row in order]
        return out

    def _tables(self, element: Element) -> list[tuple[np.ndarray, np.ndarray]]:
        """The numbers of rows whose lists are alike, and what they hold."""
        lengths, start, end = next(self._walk(element))
        kind = self._kind(element, lengths)
        if start + element.rows * kind.itemsize <= len(self.body):
            table = np.frombuffer(self.body, kind, element.rows, start)
            prefixes = [name for name in kind.names or () if name.startswith("length")]
            if all((table[name] == table[name][0]).all() for name in prefixes):
                numbers = np.arange(element.rows)
                self._end(element, start + kind.itemsize * (numbers + 1))
                return [(numbers, table)]
        forms: dict[Lengths, tuple[list[int], list[bytes]]] = {}
        ends = []
        for number, (lengths, start, end) in enumerate(self._walk(element)):
            rows, pieces = forms.setdefault(lengths, ([], []))
            rows.append(number)
            pieces.append(self.body[start:end])
            ends.append(end)
        self._end(element, np.array(ends))
        return [
            (np.array(rows), np.frombuffer(b"".join(pieces), self._kind(element, lengths)))
            for lengths, (rows, pieces) in forms.items()
        ]

    def _walk(self, element: Element) -> Iterator[tuple[Lengths, int, int]]:
        """The lengths of each row's lists, where it begins and where it ends."""
        steps: list[tuple[struct.Struct, int]] = []  # to where numbers begin, and bytes of one
        gap = 0
        for _, kind, prefix in element.properties:
            size = self._stored(kind).itemsize
            if prefix is None:
                gap += size
            else:
                form = struct.Struct(f"{self.order}{gap}x{self._stored(prefix).char}")
                steps.append((form, size))
                gap = 0
        at = self.at
        for number in range(element.rows):
            start, lengths = at, []
            try:
                for form, size in steps:
                    lengths.append(int(form.unpack_from(self.body, at)[0]))
                    at += form.size + lengths[-1] * size
            except struct.error:
                at = len(self.body) + 1
            at += gap
            if min(lengths, default=0) < 0 or at > len(self.body):
                raise ValueError(f"{element.rows:,} of {element.name} announced, {number:,} there")
            yield tuple(lengths), start, at

    def _kind(self, element: Element, lengths: Lengths) -> np.dtype:
        """The type of a row whose lists have these lengths."""
        left, fields = iter(lengths), list[tuple[str, np.dtype, tuple[int, ...]]]()
        for place, (_, kind, prefix) in enumerate(element.properties):
            shape: tuple[int, ...] = ()
            if prefix is not None:
                fields.append((f"length {place}", self._stored(prefix), ()))
                shape = (next(left),)
            fields.append((f"{place}", self._stored(kind), shape))
        return np.dtype(fields)

    def _stored(self, kind: np.dtype) -> np.dtype:
        return np.dtype(np.float64) if self.ends is not None else kind.newbyteorder(self.order)

    def _end(self, element: Element, ends: np.ndarray) -> None:
        """Go on behind rows that end there."""
        if self.ends is not None and not (inside := np.isin(ends, self.ends)).all():
            row = int(np.argmin(inside))
            raise ValueError(f"row {row} of {element.name} does not end where its line does")
        self.at = int(ends[-1])


def _as_announced(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Numbers of the header's type; of text, of one into which they fit."""
    if values.dtype.kind == kind.kind:  # text may have more digits than float32
        return values.astype(values.dtype.newbyteorder("="))
    if not np.isfinite(values).all() or (values % 1).any():
        raise ValueError("a number that must be whole is not")
    limits = np.iinfo(kind)
    fit = not values.size or (limits.min <= values.min() and values.max() <= limits.max)
    return values.astype(kind if fit else np.int64)
