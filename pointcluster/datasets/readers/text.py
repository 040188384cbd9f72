"""Text files with a row a point: `.xyz .xyzn .xyzrgb .pts .txt .csv`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcluster.datasets.readers.columns import fields_of_table
from pointcluster.datasets.readers.whole import check_count

# What the columns of a file are by its suffix.
_BY_SUFFIX = {".xyzn": "x y z nx ny nz", ".xyzrgb": "x y z r g b"}


class _Lines(NamedTuple):
    names: list[str]
    """Of the columns; none where no line names them."""
    announced: int | None
    """How many points a `.pts` file says that it has."""
    rows: list[str]


def read_text(
    path: Path, columns: str | None = None, label: str | None = None
) -> dict[str, np.ndarray]:
    """Read a row a point, with spaces, commas or semicolons between the numbers.

    A first line may name the columns, in quotes or without, or, in a `.pts` file, announce the
    number of points, whose intensities then come before colours. What `#` or `//` begin is passed
    over, unless it names the columns; that may be in any encoding, the rest is UTF-8.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no text, or no table of points, or it names a column twice.
    """
    text = _decoded(path.read_bytes())
    if text is None or "\0" in text:
        raise ValueError(f"{path} is no text, which a {path.suffix} file must be")
    names, announced, rows = _heading(path, text.splitlines(), columns)
    if not rows:
        raise ValueError(f"{path} holds no points")
    table = _numbers(path, rows, named=bool(names))
    if announced is not None:
        check_count(path, announced, len(table))
    expected = _BY_SUFFIX.get(path.suffix.lower())
    if expected is not None and columns is None and not names:
        names = expected.split()
        if table.shape[1] != len(names):
            raise ValueError(
                f"{path} has {table.shape[1]} columns, expected {len(names)} in a {path.suffix} "
                f"file: {expected}"
            )
    return fields_of_table(
        path, table, columns=columns, names=names, label=label, intensity=announced is not None
    )


def may_be_table(path: Path) -> bool:
    """Whether a text file begins as :func:`read_text` expects, so that it is no list or note."""
    with path.open("rb") as file:
        text = file.read(1 << 14).decode("utf-8-sig", errors="replace")
    try:
        rows = _heading(path, text.splitlines(), None).rows
    except ValueError:
        return False
    return bool(rows) and len(_words(_before_comment(rows[0]))) > 2


def _heading(path: Path, lines: Iterable[str], columns: str | None) -> _Lines:
    """What comes before the first row of numbers, and the rows."""
    names: list[str] = []
    announced = None
    lines = iter(lines)
    for line in lines:
        heading = _before_comment(line.lstrip("#/ \t"))
        words = _words(heading)
        if not words:
            continue
        # Names between commas may be of several words.
        mark = next((mark for mark in (";", ",", "\t") if mark in heading), None)
        named = words if mark is None else heading.split(mark)
        named = [word.strip().strip("\"'").lower() for word in named]
        comment = line.lstrip().startswith(("#", "//"))
        if not comment and all(_is_number(word) for word in words):
            if path.suffix.lower() == ".pts" and len(words) == 1 and words[0].isdigit():
                announced = int(words[0])
                continue
            return _Lines(names, announced, [line, *lines])
        if {"x", "y", "z"} <= set(named):
            names = named
        elif not comment and columns is None:
            raise ValueError(
                f"{path} is no table of points: it begins with {line[:60]!r}, expected numbers, or "
                "names of columns with x, y and z among them; columns= names them instead"
            )
    return _Lines(names, announced, [])


def _numbers(path: Path, rows: list[str], named: bool) -> np.ndarray:
    """The numbers of all rows, whatever stands between them. [P, columns]"""
    first = _before_comment(rows[0])
    delimiter = next((mark for mark in (";", ",") if mark in first), None)
    if delimiter == "," and _has_decimal_commas(first):
        delimiter = None
    if delimiter != "," and any("," in row for row in rows):
        bare = [_before_comment(row) for row in rows]
        if not any("." in row for row in bare):
            rows = [row.replace(",", ".") for row in bare]
    if delimiter == "," and not named and re.search(r",\s*$", first):
        raise ValueError(f"{path}: its rows end with a comma, expected numbers between commas")
    try:
        return np.loadtxt(rows, delimiter=delimiter, comments=["#", "//"], ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is no table of numbers, as long in every row: {error}") from error


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


def _before_comment(line: str) -> str:
    # Not where a column's name begins so, as "#returns" in a list with commas.
    return re.split(r"(?<![,;\"'])(?:#|//)", line, maxsplit=1)[0]


def _words(line: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", line) if word]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
