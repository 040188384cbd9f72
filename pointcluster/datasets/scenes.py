"""Scenes: whole scans with a class at every point, as networks of points see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, Dataset

from pointcluster.datasets.ground import GroundGrid
from pointcluster.datasets.scan_file import MEASURED, ScanFile

CHANNELS = {
    "intensity": 1,
    "return_number": 1,
    "number_of_returns": 1,
    "height": 1,
    "near_ground": 2,
    "color": 3,
    "normal": 3,
}
"""What a network can take of every point of a scene, and channels of it.

``"height"`` is above the coarse ground; ``"near_ground"`` the heights above the coarse and the fine
ground, :math:`\\operatorname{arsinh}(4 h) / 3`, which tells decimetres near it.
"""
MADE = ("height", "near_ground")
"""Features that positions alone tell."""
IGNORED = -1
"""The class of a point that has none, in :attr:`Data.y`."""


class SceneSurvey:
    """What must be known of a whole scan before the features of any of its points.

    These are the typical intensity, which differs from scanner to scanner, the ground, and how many
    points there are where: none of it needs a class. It takes one pass over the points.

    Args:
        scan: The scan.
        names: Features, of :data:`CHANNELS`.
        say: Is called with the number of points of every piece that was read.

    Raises:
        ValueError: The scan has no such features, or holds nothing but zeros in one.
    """

    def __init__(
        self, scan: ScanFile, names: Sequence[str], *, say: Callable[[int], Any] | None = None
    ) -> None:
        check_features(names)
        self.names = tuple(names)
        self.ground = GroundGrid()
        self.low, self.high = np.full(3, np.inf), np.full(3, -np.inf)
        histogram = np.zeros(1 << 16, np.int64)
        measured = {name: False for name in names if name in MEASURED}
        for points in scan.pieces():
            if missing := [name for name in names if name not in (*MADE, *points)]:
                has = ", ".join(name for name in CHANNELS if name in points) or "positions alone"
                raise ValueError(f"{scan.path} has no {missing[0]}, which is needed; it has {has}")
            pos = points["pos"]
            self.low = np.minimum(self.low, pos.min(axis=0))
            self.high = np.maximum(self.high, pos.max(axis=0))
            if set(names) & set(MADE):
                self.ground.add(pos)
            for name in measured:
                measured[name] |= bool(points[name].any())
            if "intensity" in names:
                histogram += np.bincount(points["intensity"], minlength=1 << 16)
            if say is not None:
                say(len(pos))
        for name, some in measured.items():
            if not some:
                raise ValueError(f"{scan.path} has no {name}: it is 0 at all of its points")
        histogram[0] = 0  # not measured
        self.intensity = float(np.searchsorted(histogram.cumsum(), histogram.sum() / 2))

    def features(self, points: Mapping[str, np.ndarray]) -> np.ndarray:
        """The features of some of the scan's points, about as large as 1. [N, F] float32"""
        columns = [np.zeros((len(points["pos"]), 0), np.float32)]
        for name in self.names:
            if name == "height":
                value = self.ground.height(points["pos"]).clip(-5, 60) / 10
            elif name == "near_ground":
                pair = [self.ground.height(points["pos"]), self.ground.fine_height(points["pos"])]
                value = np.arcsinh(4 * np.stack(pair, axis=1).clip(-5, 60)) / 3
            elif name == "intensity":
                value = (points[name] / (2 * self.intensity)).clip(0, 2)
            elif name in MEASURED:
                value = (points[name].clip(1, 7) - 1.0) / 3
            else:
                value = points[name]
            columns.append(np.asarray(value, np.float32).reshape(len(points["pos"]), -1))
        return np.concatenate(columns, axis=1)


def check_features(names: Sequence[str]) -> int:
    """The number of channels that features have together.

    Raises:
        ValueError: One is unknown, or named twice.
    """
    if unknown := sorted(set(names) - set(CHANNELS)):
        raise ValueError(f"features name {unknown}, expected some of {', '.join(CHANNELS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"features name one twice: {', '.join(names)}")
    return sum(CHANNELS[name] for name in names)


def read_scene(
    path: str | os.PathLike[str],
    *,
    features: Sequence[str] = (),
    classes: Mapping[str, Sequence[int]] | None = None,
    ignored: Sequence[int] | None = None,
    unit: str | None = None,
    columns: str | None = None,
) -> Data:
    """Read a scan as a scene.

    Args:
        path: The file, of a kind that :func:`pointcluster.datasets.read_points` reads.
        features: What ``x`` holds of every point, in this order, of :data:`CHANNELS`; ``"height"``
            is above the ground, which is found without classes.
        classes: The classes by name, with the codes in the file that stand for them; ``None``
            leaves classes out.
        ignored: Codes of points without a class; ``None``: all that ``classes`` do not name.
        unit: What coordinates are in, as :class:`ScanFile` takes it.
        columns: What the columns of a table are, as :func:`read_points` takes it.

    Shapes and units:
        ``Data(pos [N, 3] float32, x [N, F] float32, y [N] int64, origin, name str)``: positions in
        metres from ``origin``, a tuple of three floats that no device rounds; a point without a
        class has the class -1. Without features there is no ``x``.

    Raises:
        ImportError, OSError, ValueError: As :func:`read_points`; a feature or the classes are not
            in the file, or a code is neither of a class nor ignored.
    """
    scan = ScanFile(path, unit=unit, columns=columns)
    survey = SceneSurvey(scan, features)
    pos, x, y = [], [], []
    table = code_table(classes) if classes is not None else {}
    for points in scan.pieces():
        pos.append(points["pos"].astype(np.float32))
        x.append(survey.features(points))
        if classes is not None:
            if "label" not in points:
                raise ValueError(f"{path} has no class of its points")
            y.append(_classes_of(scan.path, points["label"], table, ignored))
    data = Data(pos=torch.from_numpy(np.concatenate(pos)), origin=scan.origin, name=scan.path.stem)
    if features:
        data.x = torch.from_numpy(np.concatenate(x))
    if classes is not None:
        data.y = torch.from_numpy(np.concatenate(y))
    return data


def code_table(classes: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """The index of the class of every code.

    Raises:
        ValueError: A code stands for two classes, or there are none.
    """
    table: dict[int, int] = {}
    for index, (name, codes) in enumerate(classes.items()):
        for code in codes:
            if code in table:
                raise ValueError(f"code {code} stands for two classes, one of them {name!r}")
            table[int(code)] = index
    if not table:
        raise ValueError("there are no classes: expected names with their codes")
    return table


def _classes_of(
    path: Path, labels: np.ndarray, table: Mapping[int, int], ignored: Sequence[int] | None
) -> np.ndarray:
    codes, place = np.unique(labels, return_inverse=True)
    known = {int(code) for code in ignored or ()} | set(table)
    if ignored is not None and (odd := [int(code) for code in codes if int(code) not in known]):
        raise ValueError(
            f"{path} has points of code {odd[0]}, which is of no class and not ignored; the "
            f"classes' codes are {sorted(table)}, ignored are {sorted(ignored)}"
        )
    index = np.array([table.get(int(code), IGNORED) for code in codes], np.int64)
    return index[place.reshape(-1)]


class SceneDataset(Dataset):
    """Scenes from files, read when they are first asked for, and then kept in memory.

    Args:
        files: The files.
        classes: The classes by name, with their codes, as in :func:`read_scene`.
        features: What ``x`` holds, likewise.
        ignored: Codes without a class, likewise.
        unit: Of the coordinates, likewise.
        columns: Of tables, likewise.
        transform: Applied to every item when it is asked for.

    Attributes:
        classes: Names of the classes.
        codes: The codes of every class; the first is what predictions are written as.
        features: What ``x`` holds.

    Raises:
        ValueError: The features or classes make no sense.
    """

    def __init__(
        self,
        files: Sequence[Path],
        classes: Mapping[str, Sequence[int]],
        *,
        features: Sequence[str],
        ignored: Sequence[int] | None = None,
        unit: str | None = None,
        columns: str | None = None,
        transform: Callable[[Data], Data] | None = None,
    ) -> None:
        self.in_channels = check_features(features)
        code_table(classes)
        super().__init__(None, transform)
        self.files, self.features = list(files), tuple(features)
        self.classes = list(classes)
        self.codes = {name: tuple(int(code) for code in codes) for name, codes in classes.items()}
        self.ignored, self.unit, self.columns = ignored, unit, columns
        self._scenes: dict[int, Data] = {}

    def len(self) -> int:
        return len(self.files)

    def get(self, idx: int) -> Data:
        if idx not in self._scenes:
            self._scenes[idx] = read_scene(
                self.files[idx],
                features=self.features,
                classes=self.codes,
                ignored=self.ignored,
                unit=self.unit,
                columns=self.columns,
            )
        return Data(**self._scenes[idx].to_dict())

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} scenes, {len(self.classes)} classes)"
