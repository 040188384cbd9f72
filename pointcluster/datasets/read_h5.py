"""Clouds and their classes from an HDF5 file, checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read_h5(
    path: Path,
    num_classes: int,
    *,
    dtypes: Sequence[str] = ("float32",),
    mask: bool = False,
    normal: bool = False,
) -> dict[str, np.ndarray]:
    """Read the arrays ``data`` and ``label`` of a file of clouds of 2,048 points.

    Args:
        path: The file.
        num_classes: Class indices must be below it.
        dtypes: Types that ``data`` may have.
        mask: Read ``mask`` too, where the file has it.
        normal: Read ``normal`` too, where the file has it, and scale it to length one.

    Shapes and units:
        ``pos [n, 2048, 3]`` float32, ``y [n]`` int64 and, where they are there, ``mask [n, 2048]``
        and ``normal [n, 2048, 3]`` float32, whose zeros stay zeros.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds something else; names the file, what was found and what
            was expected.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading HDF5 files needs h5py: pip install h5py") from error

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a list in its folder names it")
    try:
        with h5py.File(path, "r") as file:
            missing = {"data", "label"} - set(file)
            if missing:
                raise ValueError(
                    f"{path} holds {sorted(file)}, expected the arrays 'data' and 'label'"
                )
            wanted = {"mask": mask, "normal": normal}
            keys = ["data", "label", *(key for key in wanted if wanted[key] and key in file)]
            for key in keys:
                # A link whose target is not there is listed, and cannot be opened.
                if (entry := file.get(key)) is None:
                    raise ValueError(
                        f"{path}: {key!r} is a link to {_target(file.get(key, getlink=True))}, "
                        "which is not there, expected an array"
                    )
                if not isinstance(entry, h5py.Dataset):
                    raise ValueError(f"{path}: {key!r} is a group, expected an array")
            arrays = {key: file[key][()] for key in keys}
    # What h5py raises for a file that ends early, is damaged inside or is no HDF5.
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is truncated or is no HDF5 file: {error}") from error
    pos = np.asarray(arrays["data"])
    if str(pos.dtype) not in dtypes or pos.ndim != 3 or pos.shape[1:] != (2048, 3):
        raise ValueError(
            f"{path}: 'data' is {pos.dtype} {list(pos.shape)}, expected {' or '.join(dtypes)} "
            "[n, 2048, 3]"
        )
    if not len(pos):
        raise ValueError(f"{path} holds no cloud")
    pos = pos.astype(np.float32, copy=False)
    if not np.isfinite(pos).all():
        bad = int(np.argmin(np.isfinite(pos).all(axis=(1, 2))))
        raise ValueError(f"{path}: cloud {bad} has NaN or infinite positions")
    read = {"pos": pos, "y": _labels(path, np.asarray(arrays["label"]), len(pos), num_classes)}
    if "mask" in arrays:
        values = np.asarray(arrays["mask"])
        if values.shape != pos.shape[:2] or values.dtype.kind not in "iuf":
            raise ValueError(
                f"{path}: 'mask' is {values.dtype} {list(values.shape)}, expected numbers "
                f"{list(pos.shape[:2])}"
            )
        if not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise ValueError(f"{path}: cloud {bad} has a 'mask' that is NaN or infinite")
        read["mask"] = values
    if "normal" in arrays:
        read["normal"] = _normals(path, np.asarray(arrays["normal"]), pos.shape)
    return read


def _normals(path: Path, normal: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if normal.shape != shape or normal.dtype.kind != "f":
        raise ValueError(
            f"{path}: 'normal' is {normal.dtype} {list(normal.shape)}, expected float32 "
            f"{list(shape)}"
        )
    normal = normal.astype(np.float32, copy=False)
    if not np.isfinite(normal).all():
        bad = int(np.argmin(np.isfinite(normal).all(axis=(1, 2))))
        raise ValueError(f"{path}: cloud {bad} has NaN or infinite normals")
    return normal / np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)


def _target(link: Any) -> str:
    """What a soft link, or one to another file, names."""
    there = repr(getattr(link, "path", "an entry"))
    return f"{there} in {link.filename}" if hasattr(link, "filename") else there


def _labels(path: Path, y: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    whole = y.dtype.kind in "iu" or (y.dtype.kind == "f" and bool((y == np.round(y)).all()))
    if y.size != count or not whole:
        raise ValueError(
            f"{path}: 'label' is {y.dtype} {list(y.shape)}, expected integers [{count}, 1]"
        )
    y = y.reshape(-1).astype(np.int64)
    if not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(
            f"{path}: class indices go from {y.min()} to {y.max()}, expected 0 to {num_classes - 1}"
        )
    return y
