"""Clouds and their classes from an HDF5 file, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcluster._optional import needed_for

# What a byte unpacks to at most, with the filter of HDF5's own that packs tightest.
DEFLATE = 1032
# What the arrays of points are called here, and what is wrong where one is not finite.
_FINITE = {
    "data": ("pos", "NaN or infinite positions"),
    "mask": ("mask", "a 'mask' that is NaN or infinite"),
    "normal": ("normal", "NaN or infinite normals"),
}


def read_h5(
    path: Path,
    num_classes: int,
    *,
    dtypes: Sequence[str] = ("float32",),
    mask: bool = False,
    normal: bool = False,
) -> dict[str, np.ndarray]:
    """Read the arrays ``data`` and ``label`` of a file of clouds of 2,048 points.

    Where the file has them and they are asked for, ``mask`` and ``normal``, too, which is scaled to
    length one. ``data`` must be of one of ``dtypes``, class indices below ``num_classes``.

    Shapes and units:
        ``pos [n, 2048, 3]`` float32, ``y [n]`` int64 and, where they are there, ``mask [n, 2048]``
        and ``normal [n, 2048, 3]`` float32, whose zeros stay zeros.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds something else; names the file, what was found and what
            was expected.
    """
    with needed_for("reading HDF5 files", "h5py"):
        import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a list in its folder names it")
    try:
        with h5py.File(path, "r") as file:
            if not {"data", "label"} <= set(file):
                raise ValueError(
                    f"{path} holds {sorted(file)}, expected the arrays 'data' and 'label'"
                )
            wanted = {"data": True, "label": True, "mask": mask, "normal": normal}
            entries = {key: file.get(key) for key in wanted if wanted[key] and key in file}
            for key, entry in entries.items():
                # A link whose target is not there is listed, and cannot be opened.
                if entry is None:
                    raise ValueError(
                        f"{path}: {key!r} is a link to {_target(file.get(key, getlink=True))}, "
                        "which is not there, expected an array"
                    )
                if not isinstance(entry, h5py.Dataset):
                    raise ValueError(f"{path}: {key!r} is a group, expected an array")
            _check_forms(path, entries, dtypes)
            arrays = {key: np.asarray(entry[()]) for key, entry in entries.items()}
    except MemoryError as error:
        raise ValueError(f"{path} announces more than there is memory for: {error}") from error
    # What h5py raises for a file that ends early, is damaged inside or is no HDF5.
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is truncated or is no HDF5 file: {error}") from error
    read = {"y": _labels(path, arrays.pop("label"), num_classes)}
    for key, values in arrays.items():
        name, wrong = _FINITE[key]
        read[name] = values if key == "mask" else values.astype(np.float32, copy=False)
        finite = np.isfinite(read[name]).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise ValueError(f"{path}: cloud {int(np.argmin(finite))} has {wrong}")
    if normal and "normal" in read:
        length = np.linalg.norm(read["normal"], axis=2, keepdims=True)
        read["normal"] = read["normal"] / np.maximum(length, 1e-12)
    return read


def _check_forms(path: Path, entries: Mapping[str, Any], dtypes: Sequence[str]) -> None:
    """Check types and shapes before memory is taken for the arrays.

    A few kilobytes can announce any number of clouds: parts of an array that were never written
    take no room. So ``data`` must not be more than what is stored of it can unpack to; all others
    must have as many rows.
    """
    data = entries["data"]
    shape = tuple[int, ...](data.shape or ())  # none where the array is HDF5's empty one
    if str(data.dtype) not in dtypes or len(shape) != 3 or shape[1:] != (2048, 3):
        raise ValueError(
            f"{path}: 'data' is {data.dtype} {list(shape)}, expected {' or '.join(dtypes)} "
            "[n, 2048, 3]"
        )
    count = shape[0]
    if not count:
        raise ValueError(f"{path} holds no cloud")
    size, stored = count * 2048 * 3 * data.dtype.itemsize, data.id.get_storage_size()
    # An array made of parts of others stores nothing itself.
    if not data.is_virtual and size > DEFLATE * stored:
        raise ValueError(
            f"{path}: 'data' announces {count:,} clouds, {size:,} bytes, and holds {stored:,} bytes"
        )
    expected = {"label": ("iuf", "integers", (count, 1)), "mask": ("iuf", "numbers", shape[:2]),
                "normal": ("f", "float32", shape)}  # fmt: skip
    for key, (kinds, words, wanted) in expected.items():
        if (entry := entries.get(key)) is None:
            continue
        found = entry.shape or ()
        fits = math.prod(found) == count if key == "label" else found == wanted
        if not fits or entry.dtype.kind not in kinds:
            raise ValueError(
                f"{path}: {key!r} is {entry.dtype} {list(found)}, expected {words} {list(wanted)}"
            )


def _target(link: Any) -> str:
    """What a soft link, or one to another file, names."""
    there = repr(getattr(link, "path", "an entry"))
    return f"{there} in {link.filename}" if hasattr(link, "filename") else there


def _labels(path: Path, y: np.ndarray, num_classes: int) -> np.ndarray:
    if not (y == np.round(y)).all():
        raise ValueError(
            f"{path}: 'label' is {y.dtype} {list(y.shape)}, expected integers [{len(y)}, 1]"
        )
    y = y.reshape(-1).astype(np.int64)
    if not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(
            f"{path}: class indices go from {y.min()} to {y.max()}, expected 0 to {num_classes - 1}"
        )
    return y
