"""Points in tables: text files with a row a point, and arrays of NumPy's."""

from __future__ import annotations

import io
import math
import os
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

# What columns and fields are called in headers, in structured arrays and in .pcd files.
_NAMES = {
    "pos": (("x", "y", "z"),),
    "normal": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
    "color": (
        ("r", "g", "b"),
        ("red", "green", "blue"),
        ("diffuse_red", "diffuse_green", "diffuse_blue"),
        ("rf", "gf", "bf"),
    ),
}
_LABELS = (
    "label", "class", "classification", "scalar_label", "scalar_class", "scalar_classification",
)  # fmt: skip
COLUMNS = "x y z nx ny nz r g b label intensity"
_KNOWN = {*_LABELS, "intensity", "-", *(n for sets in _NAMES.values() for s in sets for n in s)}
# What a table of so many columns without names may hold.
READINGS = {
    3: ("x y z",),
    4: ("x y z label", "x y z intensity"),
    6: ("x y z nx ny nz", "x y z r g b"),
    7: (
        "x y z nx ny nz label",
        "x y z r g b label",
        "x y z intensity r g b",
        "x y z intensity nx ny nz",
    ),
    8: (
        "x y z nx ny nz label -",
        "x y z nx ny nz - label",
        "x y z r g b label -",
        "x y z r g b - label",
        "x y z intensity r g b label",
    ),
    9: ("x y z nx ny nz r g b", "x y z r g b nx ny nz"),
    10: ("x y z nx ny nz r g b label", "x y z r g b nx ny nz label"),
}
FEW, MOST = 100, 1000
"""Whole numbers are labels where there are no more different ones, and none larger."""


def read_text(
    path: Path, columns: str | None = None, label: str | None = None
) -> dict[str, np.ndarray]:
    """Read a row a point, with spaces, commas or semicolons between the numbers.

    A first line may name the columns, in quotes or without, or, in a `.pts` file, announce the
    number of points, whose intensities then come before colours. What `#` or `//` begin is passed
    over, unless it names the columns; that may be in any encoding, the rest is UTF-8.

    Args:
        path: The file.
        columns: What its columns are, instead of what it says itself.
        label: The column of labels, as in :func:`by_name`.

    Returns:
        `pos` and, where there are any, `normal` and `color`, float64, and `label`, int64.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no text, or no table of points, or it names a column twice.
    """
    text = _decoded(path.read_bytes())
    if text is None or "\0" in text:
        raise ValueError(f"{path} is no text, which a {path.suffix} file must be")
    names: list[str] = []
    rows: list[str] = []
    announced = None
    lines = iter(text.splitlines())
    for line in lines:
        heading = _before_comment(line.lstrip("#/ \t"))
        words = _words(heading)
        if not words:
            continue
        # Names between commas may be of several words.
        mark = next((mark for mark in (";", ",", "\t") if mark in heading), None)
        named = words if mark is None else heading.split(mark)
        named = [word.strip().strip("\"'").lower() for word in named]
        if not line.lstrip().startswith(("#", "//")):
            if all(_is_number(word) for word in words):
                if len(words) == 1 and words[0].isdigit() and path.suffix.lower() == ".pts":
                    announced = int(words[0])
                    continue
                rows.append(line)
                break
            if columns is None and not {"x", "y", "z"} <= set(named):
                raise ValueError(
                    f"{path} is no table of points: it begins with {line[:60]!r}, expected "
                    "numbers, or names of columns with x, y and z among them; columns= names them "
                    "instead"
                )
        if {"x", "y", "z"} <= set(named):
            names = named
    rows += lines
    if not rows:
        raise ValueError(f"{path} holds no points")
    first = _before_comment(rows[0])
    delimiter = next((mark for mark in (";", ",") if mark in first), None)
    if delimiter == "," and _has_decimal_commas(first):
        delimiter = None
    if delimiter != "," and any("," in row for row in rows):
        bare = [_before_comment(row) for row in rows]
        if not any("." in row for row in bare):  # a decimal comma
            rows = [row.replace(",", ".") for row in bare]
    if delimiter == "," and not names and re.search(r",\s*$", first):
        raise ValueError(f"{path}: its rows end with a comma, expected numbers between commas")
    try:
        table = np.loadtxt(rows, delimiter=delimiter, comments=["#", "//"], ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is no table of numbers, as long in every row: {error}") from error
    if announced is not None and announced != len(table):
        raise ValueError(f"{path} announces {announced:,} points and holds {len(table):,}")
    if columns is not None or names:
        return named_columns(path, table, columns if columns is not None else names, label)
    expected = {".xyzn": "x y z nx ny nz", ".xyzrgb": "x y z r g b"}.get(path.suffix.lower())
    if expected is not None:
        if table.shape[1] != 6:
            raise ValueError(
                f"{path} has {table.shape[1]} columns, expected 6 in a {path.suffix} file: "
                f"{expected}"
            )
        return named_columns(path, table, expected, label)
    return by_column(path, table, label, intensity=announced is not None)


def may_be_table(path: Path) -> bool:
    """Whether a text file begins as :func:`read_text` expects, so that it is no list or note."""
    with path.open("rb") as file:
        text = file.read(1 << 14).decode("utf-8-sig", errors="replace")
    named = False
    for line in text.splitlines():
        words = _words(_before_comment(line.lstrip("#/ \t")))
        if {"x", "y", "z"} <= {word.strip("\"'").lower() for word in words} and not named:
            named = True
        elif words and not line.lstrip().startswith(("#", "//")):
            return len(words) > 2 and all(_is_number(word) for word in words)
    return False


def read_npy(
    path: Path, columns: str | None = None, label: str | None = None
) -> dict[str, np.ndarray]:
    """Read an array `[P, 3]` or wider, or a structured one with fields `x`, `y` and `z`.

    Columns and fields mean what they mean in text. Objects are refused: to read them is to run
    code from the file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or no such array.
    """
    with path.open("rb") as file:
        try:
            _check_npy(file, path.stat().st_size)
            file.seek(0)
            array = np.load(file, allow_pickle=False)
        # What NumPy raises for a header that is damaged.
        except (ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
            if "allow_pickle" in str(error):
                raise ValueError(
                    f"{path} is refused: it holds Python objects or is no .npy file, and to "
                    "unpickle it could run any code. Save numbers: np.save(file, "
                    "points.astype('float32'))"
                ) from None
            raise ValueError(
                f"{path} is truncated or is no .npy file: {str(error)[:200]}"
            ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an archive of arrays, expected one array as np.save() writes")
    if array.dtype.names is not None:
        if columns is not None:
            raise ValueError(
                f"{path} names its columns itself: columns= is for those without names"
            )
        for name in array.dtype.names:
            if array[name].shape != array.shape:
                raise ValueError(
                    f"{path}: its field {name} holds {list(array.dtype[name].shape)} numbers a "
                    "point, expected one: give each a field, such as x, y and z"
                )
        return by_name(path, {name: array[name].ravel() for name in array.dtype.names}, label)
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise ValueError(
            f"{path} is {array.dtype} {list(array.shape)}, expected numbers [points, 3] or wider"
        )
    table = array.astype(np.float64)
    if columns is None:
        return by_column(path, table, label)
    return named_columns(path, table, columns, label)


def _check_npy(file: BinaryIO, size: int) -> None:
    """Compare what a header announces with the file's size, before memory is taken for it."""
    head = io.BytesIO(file.read(1 << 16))  # NumPy refuses a header of more than 10,000 bytes
    if not head.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
        return  # not an array: np.load() says what it is
    first = np.lib.format.read_magic(head) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(head)
    except (MemoryError, RecursionError):  # of Python's parser, not of the array
        raise ValueError("its header is nested too deeply") from None
    if dtype.hasobject:
        return  # refused by np.load()
    points, width = (shape or (1,))[0], math.prod(shape[1:]) * dtype.itemsize
    room = size - head.tell()
    if not 0 <= points * width <= room:
        raise ValueError(f"it announces {points:,} points and holds {room // max(width, 1):,}")


def by_name(
    path: str | os.PathLike[str], columns: Mapping[str, np.ndarray], label: str | None = None
) -> dict:
    """Positions, normals, colours and labels from columns that have names.

    What stands beside a position that is NaN or infinite counts as 0.

    Args:
        path: The file, as messages name it.
        columns: Its columns by their names.
        label: The column of labels, in upper or lower case; by default one that is called so.

    Raises:
        ValueError: There is no x, y and z, or no such column, or one is there twice or holds no
            numbers.
    """
    _check_once(path, columns, label)
    found = {field: find_columns(columns, field) for field in _NAMES}
    for three in found.values():
        if any(column.dtype.kind not in "fiu" for column in three.values()):
            raise ValueError(f"{path}: {', '.join(three)} must be numbers")
    if not found["pos"]:
        raise ValueError(f"{path} has the columns {', '.join(columns)}, expected x, y and z")
    out = {field: np.column_stack([*three.values()]) for field, three in found.items() if three}
    out["pos"] = out["pos"].astype(np.float64)
    there = np.isfinite(out["pos"]).all(axis=1)
    for field in out.keys() - {"pos"}:
        out[field] = np.where(there[:, None], out[field], 0).astype(np.float64)
    if "color" in out:
        kinds = (column.dtype for column in found["color"].values())
        out["color"] = to_unit(path, out["color"], *kinds)
    labels = label_of(path, columns, there, label)
    if labels is not None:
        out["label"] = labels
    elif label is not None:
        raise ValueError(no_labels(path, label, columns))
    return out


def label_of(
    path: str | os.PathLike[str],
    columns: Mapping[str, np.ndarray],
    there: np.ndarray | bool = True,
    label: str | None = None,
) -> np.ndarray | None:
    """The class of each point that is there, 0 of others, where a column is called so. [P] int64

    Args:
        path: The file, as messages name it.
        columns: Its columns by their names.
        there: Which points are there.
        label: What the column is called, instead of any of the usual names.

    Raises:
        ValueError: Not all are whole numbers.
    """
    lower = {name.lower(): column for name, column in columns.items()}
    names = _LABELS if label is None else (label.lower(),)
    name = next((name for name in names if name in lower), None)
    if name is None:
        return None
    column = lower[name]
    if column.dtype.kind in "fiub":
        column = np.where(there, column, np.zeros(1, column.dtype))
    if column.dtype.kind not in "fiub" or not _whole_numbers(column):
        where = f"{path}: " if path else ""
        raise ValueError(f"{where}its column {name} must be whole numbers")
    return column.astype(np.int64)


def no_labels(path: str | os.PathLike[str], label: str, columns: Iterable[str]) -> str:
    """What is wrong where the column of labels that was asked for is not there."""
    there = ", ".join(columns) or "no columns with names"
    where = f"{path} has" if path else "it has"
    return f"{where} no column {label} of labels: expected one of {there}"


def _whole_numbers(column: np.ndarray) -> bool:
    wide = column.astype(np.float64)
    return bool(np.isfinite(wide).all() and (np.abs(wide) < 2**53).all() and not (wide % 1).any())


def twice(names: Iterable[str], label: str | None = None) -> str | None:
    """The first of the names that are read which is there twice, in upper or lower case.

    Args:
        names: Of all columns.
        label: What the column of labels is called, where that is not one of the usual names.
    """
    seen = Counter(name.lower() for name in names)
    known = [name for sets in _NAMES.values() for each in sets for name in each] + [*_LABELS]
    known += [] if label is None else [label.lower()]
    return next((name for name in known if seen[name] > 1), None)


def find_columns(columns: Mapping[str, np.ndarray], field: str) -> dict[str, np.ndarray]:
    """The three columns of ``pos``, ``normal`` or ``color`` by their names; none if one lacks."""
    lower = {name.lower(): column for name, column in columns.items()}
    for names in _NAMES[field]:
        if all(name in lower for name in names):
            return {name: lower[name] for name in names}
    return {}


def column_names(columns: str) -> list[str]:
    """The names in what a user says of a table's columns, in lower case.

    Raises:
        ValueError: A name is not known or is there twice, or one of three is missing.
    """
    names = columns.lower().replace(",", " ").split()
    said = f"columns={columns!r}"
    if unknown := sorted({*names} - _KNOWN):
        raise ValueError(
            f"{said}: {', '.join(unknown)} is no known column, expected {COLUMNS}, and - for what "
            "to leave out"
        )
    _check_once(said, names)
    if not {"x", "y", "z"} <= {*names}:
        raise ValueError(f"{said}: expected x, y and z")
    for three in (three for sets in _NAMES.values() for three in sets):
        if 0 < len({*three} & {*names}) < 3:
            raise ValueError(f"{said}: expected all of {', '.join(three)} or none")
    return names


def named_columns(
    path: str | os.PathLike[str],
    table: np.ndarray,
    names: str | Sequence[str],
    label: str | None = None,
) -> dict[str, np.ndarray]:
    """What a table holds whose columns have names; `-` is one that is passed over.

    Args:
        path: The file, as messages name it.
        table: Its numbers.
        names: Of the columns, as the file has them or, in one text, as :func:`column_names` wants.
        label: The column of labels, as in :func:`by_name`.

    Raises:
        ValueError: It has more or fewer columns, one is there twice, or x, y and z are not there.
    """
    said = isinstance(names, str)
    names = column_names(names) if isinstance(names, str) else names
    if len(names) != table.shape[1]:
        listed = f"names {len(names)} columns ({', '.join(names)}) and"
        about = f"{path}: columns= {listed} the file" if said else f"{path} {listed}"
        raise ValueError(f"{about} has {table.shape[1]}")
    _check_once(path, names, label)
    kept = [(name, column) for name, column in zip(names, table.T, strict=True) if name != "-"]
    return by_name(path, dict(kept), label)


def by_column(
    path: Path, table: np.ndarray, label: str | None = None, *, intensity: bool = False
) -> dict[str, np.ndarray]:
    """What the columns of a table without names are, by their number and by what they hold.

    Normals have length 1 (or, some of them, 0), colours are from 0 to 255 or to 1, labels are few
    different whole numbers.

    Args:
        path: The file, as messages name it.
        table: Its numbers.
        label: The column of labels, as in :func:`by_name`.
        intensity: Whether a reading with an intensity comes before all others that fit.

    Raises:
        ValueError: They may be several things, or nothing that is known.
    """
    readings = READINGS.get(table.shape[1], ())
    there = table[np.isfinite(table[:, :3]).all(axis=1)]
    fitting = [reading for reading in readings if not len(there) or _fits(there, reading)]
    normals = [reading for reading in fitting if reading.startswith("x y z nx")]
    if normals and _no_colors(there[:, 3:6]):
        fitting = normals
    first = "x y z intensity" if intensity else "x y z label"  # rather than whole intensities
    fitting = [reading for reading in fitting if reading.startswith(first)] or fitting
    if len(fitting) == 1 or (fitting and not len(there)):
        return named_columns(path, table, fitting[0], label)
    if fitting:
        about = f"may be {' or '.join(map(repr, fitting))}"
    elif readings:
        about = f"are none of {', '.join(map(repr, readings))}"
    else:
        about = f"are not {', '.join(map(str, READINGS))}"
    raise ValueError(
        f"{path}: its {table.shape[1]} columns {about}: normals have length 1, colours go from 0 "
        f"to 1 or 255, labels are whole numbers to {MOST:,}. Say what they are, by columns='x y z "
        f"...' or in a first line, with {COLUMNS} and - for what to leave out"
    )


def _fits(table: np.ndarray, reading: str) -> bool:
    """Whether the numbers of all columns can be what a reading says that they are."""
    for at, name in enumerate(reading.split()):
        three = table[:, at : at + 3]
        if name == "nx" and not _are_normals(three):
            return False
        if name == "r" and not (0 <= three.min() and three.max() <= 255):
            return False
        if name == "label" and not _are_labels(table[:, at]):
            return False
    return True


def _are_normals(three: np.ndarray) -> bool:
    length = np.linalg.norm(three, axis=1)
    some = np.abs(length - 1) < 0.01
    return bool((some | (length == 0)).all() and some.any())


def _no_colors(three: np.ndarray) -> bool:
    """Whether vectors of length 1 and 0 are none of pure red, green, blue and black alone."""
    pure = ((three == 0) | (three == 1)).all()
    return not pure or bool((three != 0).any(axis=1).all())


def _are_labels(column: np.ndarray) -> bool:
    if not _whole_numbers(column) or column.min() < -1 or column.max() > MOST:
        return False
    return len(np.unique(column)) <= FEW


def to_unit(path: str | os.PathLike[str], color: np.ndarray, *kinds: np.dtype) -> np.ndarray:
    """Colours from 0 to 1, whatever they were counted in.

    Integers of 8 bits are counted to 255, wider ones to 65,535, or to the most that their type
    holds where one exceeds that; not every writer uses all bits, so to 255 where none exceeds
    that. Other numbers are counted to the first of 1, 255 and 65,535 that all reach at most.

    Raises:
        ValueError: They are in none of these ranges.
    """
    if not color.size:
        return color
    low, high = float(color.min()), float(color.max())
    limits: tuple[int, ...] = (1, 255, 65535)
    if kinds and all(kind.kind in "iu" for kind in kinds):
        limits = (255, 65535, max(int(np.iinfo(kind).max) for kind in kinds))
    most = next((most for most in limits if high <= most), None)
    if not low >= 0 or most is None:
        raise ValueError(f"{path}: colours go from {low:g} to {high:g}, expected 0 to 1 or to 255")
    return color / most


def _has_decimal_commas(row: str) -> bool:
    """Whether a row is of numbers with spaces between them, and commas inside of them alone."""
    words = row.split()
    return len(words) > 2 and all(re.fullmatch(r"[^,]+|[^,]*\d,\d[^,]*", word) for word in words)


def _decoded(data: bytes) -> str | None:
    """Text in UTF-8, or in another encoding of which only comments make use; else `None`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not all(re.split(rb"#|//", line, maxsplit=1)[0].isascii() for line in data.splitlines()):
        return None
    # Not as Latin-1, in which some bytes would end a line.
    return data.decode("ascii", errors="replace")


def _check_once(
    path: str | os.PathLike[str], names: Iterable[str], label: str | None = None
) -> None:
    if name := twice(names, label):
        raise ValueError(f"{path} names two columns {name}, expected one: rename the other")


def _before_comment(line: str) -> str:
    # Not where a column's name begins so, as "#returns" in a list with commas.
    return re.split(r"(?<![,;\"'])(?:#|//)", line, maxsplit=1)[0]


def _words(line: str) -> Sequence[str]:
    return [word for word in re.split(r"[\s,;]+", line) if word]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
