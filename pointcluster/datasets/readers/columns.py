"""What columns of numbers mean: positions, normals, colours and labels, by name or by content."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Path = str | os.PathLike[str]
# What the columns of a field are called in headers, in structured arrays, in .ply and .pcd files.
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
_THREES = tuple(three for threes in _NAMES.values() for three in threes)
_LABELS = (
    "label", "class", "classification", "scalar_label", "scalar_class", "scalar_classification",
)  # fmt: skip
_READ = tuple(name for three in _THREES for name in three) + _LABELS
COLUMNS = "x y z nx ny nz r g b label intensity"
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


# --- columns with names --------------------------------------------------------------------------


def fields_by_name(
    path: Path, columns: Mapping[str, np.ndarray], label: str | None = None
) -> dict[str, np.ndarray]:
    """Positions, normals, colours and labels from columns that have names.

    Labels are those of the column ``label`` or, by default, of one that is called so. What stands
    beside a position that is NaN or infinite counts as 0.

    Shapes and units:
        ``pos`` and, where they are there, ``normal`` and ``color [P, 3]`` float64, colours from 0
        to 1, and ``label [P]`` int64.

    Raises:
        ValueError: There is no x, y and z, or no such column, or one is there twice or holds no
            numbers.
    """
    check_names(path, columns, label)
    threes = {field: find_three(columns, field) for field in _NAMES}
    for three in threes.values():
        if any(column.dtype.kind not in "fiu" for column in three.values()):
            raise ValueError(f"{path}: {', '.join(three)} must be numbers")
    if not threes["pos"]:
        raise ValueError(f"{path} has the columns {', '.join(columns)}, expected x, y and z")
    out = {field: np.column_stack([*three.values()]) for field, three in threes.items() if three}
    out["pos"] = out["pos"].astype(np.float64)
    there = np.isfinite(out["pos"]).all(axis=1)
    for field in out.keys() - {"pos"}:
        out[field] = np.where(there[:, None], out[field], 0).astype(np.float64)
    if "color" in out:
        kinds = (column.dtype for column in threes["color"].values())
        out["color"] = to_unit(path, out["color"], *kinds)
    labels = find_labels(path, columns, label, there)
    if labels is not None:
        out["label"] = labels
    elif label is not None:
        raise ValueError(no_labels(path, label, columns))
    return out


def find_three(columns: Mapping[str, np.ndarray], field: str) -> dict[str, np.ndarray]:
    """The three columns of ``pos``, ``normal`` or ``color`` by their names; none if one lacks."""
    lower = {name.lower(): column for name, column in columns.items()}
    for names in _NAMES[field]:
        if all(name in lower for name in names):
            return {name: lower[name] for name in names}
    return {}


def find_labels(
    path: Path,
    columns: Mapping[str, np.ndarray],
    label: str | None = None,
    there: np.ndarray | bool = True,
) -> np.ndarray | None:
    """The class of each point that is there, 0 for others, where a column is called so.

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


def no_labels(path: Path, label: str, columns: Iterable[str]) -> str:
    """What is wrong where the column of labels that was asked for is not there."""
    there = ", ".join(columns) or "no columns with names"
    return f"{path or 'it'} has no column {label} of labels: expected one of {there}"


def check_names(path: Path, names: Iterable[str], label: str | None = None) -> None:
    """Refuse two columns of one name that is read, in upper or lower case.

    Raises:
        ValueError: There are two.
    """
    seen = Counter(name.lower() for name in names)
    for name in _READ if label is None else (*_READ, label.lower()):
        if seen[name] > 1:
            raise ValueError(
                f"{path or 'it'} names two columns {name}, expected one: rename the other"
            )


def to_unit(path: Path, color: np.ndarray, *kinds: np.dtype) -> np.ndarray:
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


# --- tables, whose columns a user, the file or its numbers name -----------------------------------


def column_names(columns: str) -> list[str]:
    """The names in what a user says of a table's columns, in lower case.

    Raises:
        ValueError: A name is not known or is there twice, or one of three is missing.
    """
    names = columns.lower().replace(",", " ").split()
    said = f"columns={columns!r}"
    if unknown := sorted({*names} - {*_READ, "intensity", "-"}):
        raise ValueError(
            f"{said}: {', '.join(unknown)} is no known column, expected {COLUMNS}, and - for what "
            "to leave out"
        )
    check_names(said, names)
    if not {"x", "y", "z"} <= {*names}:
        raise ValueError(f"{said}: expected x, y and z")
    for three in _THREES:
        if 0 < len({*three} & {*names}) < 3:
            raise ValueError(f"{said}: expected all of {', '.join(three)} or none")
    return names


def fields_of_table(
    path: Path,
    table: np.ndarray,
    *,
    columns: str | None = None,
    names: Sequence[str] = (),
    label: str | None = None,
    intensity: bool = False,
) -> dict[str, np.ndarray]:
    """What a table ``[P, columns]`` holds, as :func:`fields_by_name` gives it.

    Its columns are what a user says (``columns``, as :func:`column_names` wants it), else what the
    file calls them (``names``), else what :func:`guess_names` makes of them.

    Raises:
        ValueError: It has more or fewer columns, one is there twice, x, y and z are not there, or
            nothing tells what they are.
    """
    said = f"{path} names"
    if columns is not None:
        names, said = column_names(columns), f"{path}: columns= names"
    elif not names:
        names = guess_names(path, table, intensity)
    if len(names) != table.shape[1]:
        has = "the file has" if columns is not None else "has"
        raise ValueError(
            f"{said} {len(names)} columns ({', '.join(names)}) and {has} {table.shape[1]}"
        )
    check_names(path, names, label)
    kept = [(name, column) for name, column in zip(names, table.T, strict=True) if name != "-"]
    return fields_by_name(path, dict(kept), label)


def guess_names(path: Path, table: np.ndarray, intensity: bool = False) -> list[str]:
    """What the columns of a table without names are, by their number and by what they hold.

    Normals have length 1 (or, some of them, 0), colours are from 0 to 255 or to 1, labels are few
    different whole numbers. A reading with a label, or with an ``intensity``, comes before others.

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
        return fitting[0].split()
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


def _whole_numbers(column: np.ndarray) -> bool:
    wide = column.astype(np.float64)
    return bool(np.isfinite(wide).all() and (np.abs(wide) < 2**53).all() and not (wide % 1).any())
