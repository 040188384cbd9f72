"""Arrays of NumPy's, `.npy`: a row a point, or fields with names."""

from __future__ import annotations

import io
import math
import tokenize
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pointcluster.datasets.readers.columns import fields_by_name, fields_of_table


def read_npy(
    path: Path, columns: str | None = None, label: str | None = None
) -> dict[str, np.ndarray]:
    """Read an array `[P, 3]` or wider, or a structured one with fields `x`, `y` and `z`.

    Columns and fields mean what they mean in text. Objects are refused: to read them is to run
    code from the file.

    Args:
        path: The file.
        columns: What its columns are, where they have no names.
        label: The column of labels, as in :func:`fields_by_name`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or no such array.
    """
    array = _load(path)
    if array.dtype.names is None:
        if array.dtype.kind not in "fiu" or array.ndim != 2:
            raise ValueError(
                f"{path} is {array.dtype} {list(array.shape)}, expected numbers [points, 3] or "
                "wider"
            )
        return fields_of_table(path, array.astype(np.float64), columns=columns, label=label)
    if columns is not None:
        raise ValueError(f"{path} names its columns itself: columns= is for those without names")
    for name in array.dtype.names:
        if array[name].shape != array.shape:
            raise ValueError(
                f"{path}: its field {name} holds {list(array.dtype[name].shape)} numbers a point, "
                "expected one: give each a field, such as x, y and z"
            )
    return fields_by_name(path, {name: array[name].ravel() for name in array.dtype.names}, label)


def _load(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        try:
            _check_header(file, path.stat().st_size)
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
    return array


def _check_header(file: BinaryIO, size: int) -> None:
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
