"""Scans of one's own with a class at every point."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch_geometric.data import Data

from pointcluster.datasets.readers.points import SUFFIXES
from pointcluster.datasets.scan_file import MEASURED, ScanFile
from pointcluster.datasets.scenes import SceneDataset

NAMES = {
    0: "never classified",
    1: "unclassified",
    2: "ground",
    3: "low vegetation",
    4: "medium vegetation",
    5: "high vegetation",
    6: "building",
    7: "low noise",
    9: "water",
    10: "rail",
    11: "road",
    13: "wire guard",
    14: "wire",
    15: "tower",
    17: "bridge",
    18: "high noise",
}
"""What the LAS format calls its codes."""
UNSURE = (0, 7, 18)
"""Codes that are ignored in LAS files where nothing is said: never classified, and noise."""


class SceneFolder(SceneDataset):
    """Scans of one's own, ``root/train/*`` and ``root/test/*``, each point with a class.

    Files are of any kind that :func:`pointcluster.datasets.read_points` reads; the class is the
    classification of ``.las`` and ``.laz``, elsewhere a column ``label``, ``class``,
    ``classification`` or ``scalar_Classification``, or the one that ``columns`` calls ``label``.

    Args:
        root: The folder; its subfolders are read, too.
        split: ``"train"`` or ``"test"``; ``None``: all files of a folder without the two.
        classes: Names with their codes in the files, such as ``{"ground": [2], "other": [1, 5]}``;
            ``None``: the codes that the files hold, named as the LAS format names them.
        ignored: Codes of points without a class; ``None``: all that ``classes`` do not name, or,
            without ``classes``, in LAS files never classified points and noise.
        features: What ``x`` holds, of :data:`~pointcluster.datasets.scenes.CHANNELS`; ``None``: the
            height above ground, and what the first file has of the others.
        unit: What coordinates are in, ``"metre"``, ``"foot"`` or ``"us-foot"``; ``None``: as LAS
            files say, and metres otherwise.
        columns: What the columns of tables are, as :func:`read_points` takes it.
        transform: Applied to every item when it is asked for.

    Shapes and units:
        Items are ``Data(pos [N, 3] float32, x [N, F] float32, y [N] int64, origin, name)``, as
        :func:`~pointcluster.datasets.scenes.read_scene` gives them.

    Raises:
        FileNotFoundError: There is no such folder, or no file in it.
        ImportError, OSError: As :func:`read_points`.
        ValueError: A file has no class of its points, all have the same, or a code is neither of a
            class nor ignored; an argument makes no sense.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        classes: Mapping[str, Sequence[int]] | None = None,
        ignored: Sequence[int] | None = None,
        features: Sequence[str] | None = None,
        unit: str | None = None,
        columns: str | None = None,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        if split not in (None, "train", "test"):
            raise ValueError(f"split is {split!r}, expected 'train', 'test' or None")
        root = Path(root).expanduser()
        # Both splits have the classes and features of the first.
        all_files = _files(root if split is None else root / "train")
        files = all_files if split != "test" else _files(root / "test")
        if classes is None:
            classes = _classes_in(all_files, ignored, columns)
        if features is None:
            features = _features_of(all_files[0], columns)
        super().__init__(
            files,
            classes,
            features=features,
            ignored=ignored,
            unit=unit,
            columns=columns,
            transform=transform,
        )
        self.split = split


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise FileNotFoundError(f"{folder} has no scans: expected files {' '.join(SUFFIXES)}")
    return found


def _classes_in(
    files: Sequence[Path], ignored: Sequence[int] | None, columns: str | None
) -> dict[str, tuple[int]]:
    """The codes that files hold, by name."""
    codes: set[int] = set()
    las = False
    for path in files:
        scan = ScanFile(path, columns=columns)
        las |= scan.is_las
        for points in scan.pieces():
            if "label" not in points:
                raise ValueError(f"{path} has no class of its points")
            codes |= set(np.unique(points["label"]).tolist())
    codes -= set(UNSURE if ignored is None and las else ignored or ())
    if len(codes) < 2:
        raise ValueError(f"the points in {files[0].parent} have the codes {sorted(codes)}, "
                         "expected at least two classes")  # fmt: skip
    return {NAMES.get(code, f"class {code}") if las else f"class {code}": (code,)
            for code in sorted(codes)}  # fmt: skip


def _features_of(path: Path, columns: str | None) -> list[str]:
    """What a file has of every point, and holds anything but zeros."""
    points = next(ScanFile(path, columns=columns).pieces())
    kinds = (*MEASURED, "color", "normal")
    return [name for name in kinds if name in points and points[name].any()] + ["height"]
