"""Arrays of NumPy's, `.npy`: a row a point, or fields with names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointcluster.datasets.readers.columns import fields_by_name, fields_of_table


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
    array = _load(path)
    if array.dtype.names is None:
        if array.dtype.kind not in "fiu" or array.ndim != 2:
            raise ValueError(
                f"{path} is {array.dtype} {list(array.shape)}, expected numbers [points, 3] or "
                "wider"
            )
        return fields_of_table(path, np.array(array, np.float64), columns=columns, label=label)
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
    """The array, mapped: one that is larger than the file takes no memory."""
    refused = (
        f"{path} is refused: it holds Python objects or is no .npy file, and to unpickle it could "
        "run any code. Save numbers: np.save(file, points.astype('float32'))"
    )
    with path.open("rb") as file:
        begin = file.read(len(np.lib.format.MAGIC_PREFIX))
    if begin.startswith(b"PK"):
        raise ValueError(f"{path} is an archive of arrays, expected one array as np.save() writes")
    if begin != np.lib.format.MAGIC_PREFIX:
        raise ValueError(refused)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # MemoryError, too: of Python's parser, in a header nested deeply
        if "Python objects" in str(error):
            raise ValueError(refused) from None
        raise ValueError(f"{path} is truncated or is no .npy file: {str(error)[:200]}") from error
