"""Scans and meshes of one's own, in one folder a class."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, Dataset

from pointcluster.datasets.folders import (
    class_folders,
    files_below,
    files_of,
    first_readable,
    folders_of,
    listed,
    subfolders,
)
from pointcluster.datasets.readers.columns import column_names
from pointcluster.datasets.readers.points import SUFFIXES, TABLES, read_points
from pointcluster.datasets.readers.text import may_be_table
from pointcluster.files import replacing
from pointcluster.transforms.clouds import FEATURES, FIELDS, reduce_points, to_unit_sphere

CACHE = ".pointcluster"
_SPLITS = ("train", "test")
_VALIDATION = {"val", "valid", "validation"}  # what others call a third one


class PointFolder(Dataset):
    """Labelled scans or meshes, ``root/CLASS/*.ply`` or another suffix of :func:`read_points`.

    The split may lie in folders, ``root/{train,test}/CLASS/*`` or, as in ModelNet40's original
    form, ``root/CLASS/{train,test}/*``. Otherwise part of every class is the test set. Which files
    that is depends on their names and ``split_seed`` alone, so that files added later move few of
    those that were there. Names that begin with a dot are passed over.

    Scans in other places are not read, and a ``UserWarning`` says how many there are and where:
    deeper in a class's folder, in the root itself, in a third folder beside ``train`` and ``test``
    such as ``val``, behind links that lead nowhere. In such a place a ``.txt`` or ``.csv`` counts
    where it begins as a table of points. Scans in folders ``train`` and ``test`` with others beside
    them are an error, as the split would not be the one of the folders.

    Files are read when they are asked for. A mesh is sampled evenly by area; of a scan with more
    points than asked for, some are kept, spread evenly in space; one with fewer keeps all, and
    three points are a cloud as well. What is kept of a file is written to ``root/.pointcluster``
    and taken from there until the file's size or time changes. Where that folder cannot be written,
    every file is read anew each time.

    Args:
        root: The folder.
        split: ``"train"``, ``"test"``, or ``None`` for all.
        num_points: Most points of an item.
        voxel_size: Keep at most one point in each voxel of this edge, in the files' unit.
        normalize: Move every cloud into the unit sphere around its mean, as in
            :class:`ModelNet40`.
        fields: What else than positions items have: some of ``"normal"``, ``"color"`` and
            ``"label"``. By default what the first readable file has of the first two. A file that
            lacks one is an error, as clouds of one batch must have the same.
        seed: What sampling goes by; with the file's name, so each file has its own.
        split_seed: What the split goes by where folders do not say.
        test_fraction: Part of every class that is the test set where folders do not say: rounded,
            and at least one file of two or more.
        transform: Applied to every item when it is read.
        cache: Whether to keep what was read, or another folder to keep it in.
        on_error: What happens to a file that cannot be read as a cloud. ``"raise"``: a ValueError
            that names it. ``"skip"``: in its place comes the next readable one in the order of the
            list, with that one's class, the same each time; the length stays. Each process warns
            once about each such file. What the system refuses, such as a missing file, is an
            OSError either way.
        drop_invalid: Leave out points with a NaN or infinite position.
        columns: What the columns of tables (``.npy``, text) are, as in :func:`read_points`.

    Attributes:
        classes: Names of the classes, sorted.
        targets: Class index of each item, int64 ``[n]``; of a part of the data set, of its items.
        names: Each item's path below ``root``, likewise.

    Shapes and units:
        Items are ``Data(pos [P, 3] float32, y [1] int64, name str, origin, scale)``, with
        ``normal [P, 3]`` and ``color [P, 3]``, from 0 to 1, where the files have them. Positions in
        the file are ``pos * scale + origin``, of a float and a tuple of three. Points are in random
        order: the first n are a sample too. ``name`` is the file's path below ``root``.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ImportError: The package that reads a format is not installed.
        ValueError: An argument makes no sense; there are no class folders or no files, a class has
            no files, or the classes of the two splits differ; only some scans lie in folders of
            splits; when a file is read, as ``on_error`` says.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        num_points: int = 2048,
        voxel_size: float | None = None,
        normalize: bool = True,
        fields: Sequence[str] | None = None,
        seed: int = 0,
        split_seed: int = 0,
        test_fraction: float = 0.25,
        transform: Callable[[Data], Data] | None = None,
        cache: bool | str | os.PathLike[str] = True,
        on_error: str = "raise",
        drop_invalid: bool = False,
        columns: str | None = None,
    ) -> None:
        if split not in (None, *_SPLITS):
            raise ValueError(f"split is {split!r}, expected 'train', 'test' or None")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
        if num_points < 1:
            raise ValueError(f"num_points is {num_points}, expected at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected at least 0")
        if voxel_size is not None and not 0 < voxel_size < float("inf"):
            raise ValueError(f"voxel_size is {voxel_size}, expected a positive number or None")
        if not 0 <= test_fraction <= 1:
            raise ValueError(f"test_fraction is {test_fraction}, expected 0 to 1")
        if unknown := set(fields or ()) - set(FIELDS):
            raise ValueError(f"fields names {sorted(unknown)}, expected some of {FIELDS}")
        if columns is not None:
            column_names(columns)
        super().__init__(None, transform)
        self.root = Path(root).expanduser()
        self.split, self.num_points, self.voxel_size = split, num_points, voxel_size
        self.normalize, self.seed, self.on_error = normalize, seed, on_error
        self.drop_invalid, self.columns = drop_invalid, columns
        self._cache: Path | None = None
        if cache is not False:
            self._cache = self.root / CACHE if cache is True else Path(cache).expanduser()
        self.classes, files = find_files(self.root, test_fraction, split_seed)
        used = {name for each in files.values() for name, _ in each}
        if others := other_scans(self.root, used):
            warnings.warn(
                f"{self.root}: {len(others):,} of its scans will not be read, those in "
                f"{folders_of(others)}: "
                f"expected in folders such as {os.path.dirname(min(used))}",
                stacklevel=2,
            )
        chosen = [(name, y) for each in _SPLITS if split in (None, each) for name, y in files[each]]
        chosen.sort(key=lambda item: (item[1], item[0]))
        if not chosen:
            raise ValueError(
                f"{self.root} has no {split} files: its {sum(map(len, files.values()))} files are "
                f"all on the other side (test_fraction is {test_fraction})"
            )
        self._names = [name for name, _ in chosen]
        self._targets = torch.tensor([y for _, y in chosen])
        self._unreadable: set[int] = set()
        self.fields: tuple[str, ...] = ()
        if fields is not None:
            self.fields = tuple(field for field in FIELDS if field in fields)
        else:
            # The same for both splits: what the first file of all has.
            everything = sorted(name for each in files.values() for name, _ in each)
            self.fields = self._fields_of_first(everything)

    @property
    def names(self) -> list[str]:
        """Path below ``root`` of each item."""
        return [self._names[i] for i in self.indices()]

    @property
    def targets(self) -> torch.Tensor:
        """Class index of each item."""
        return self._targets[list(self.indices())]

    def len(self) -> int:
        return len(self._names)

    def get(self, idx: int) -> Data:
        size = len(self._names)
        read = first_readable(
            ((idx + step) % size for step in range(size)),
            lambda place: self._keep_fields(self._read(self._names[place]), self._names[place]),
            self._unreadable,
            skip=self.on_error == "skip",
        )
        if read is None:
            raise ValueError(f"none of the {size} files of {self.root} can be read")
        place, data = read
        if self.normalize:
            data = to_unit_sphere(data)
        else:
            data.scale = 1.0
        data.y, data.name = self._targets[[place]], self._names[place]
        return data

    def path(self, index: int) -> Path:
        """Where an item's file lies."""
        return self.root / self._names[self.indices()[index]]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"PointFolder({str(self.root)!r}, {len(self)}, split={self.split!r})"

    def _fields_of_first(self, names: Sequence[str]) -> tuple[str, ...]:
        for name in names:
            try:
                data = self._read(name)
            except ValueError:
                if self.on_error == "raise":
                    raise
                continue
            return tuple(field for field in FEATURES if data.get(field) is not None)
        raise ValueError(f"none of the {len(names)} files of {self.root} can be read")

    def _keep_fields(self, data: Data, name: str) -> Data:
        for field in FIELDS:
            if field in self.fields:
                if data.get(field) is None:
                    raise ValueError(
                        f"{self.root / name} has no {field}, which this data set keeps: it was "
                        "asked for, or the first file has it. fields=() keeps positions alone"
                    )
            elif data.get(field) is not None:
                del data[field]
        return data

    def _read(self, name: str) -> Data:
        """What is kept of a file, before it is normalised: from the cache, or read."""
        path = self.root / name
        status = path.stat()
        stamp = np.array([status.st_size, status.st_mtime_ns], np.int64)
        kept = self._cache_file(name)
        if kept is not None and (data := _load(kept, stamp)) is not None:
            return data
        seed = (self.seed, zlib.crc32(name.encode()))
        data = read_points(
            path,
            mesh_points=self.num_points,
            seed=seed,
            drop_invalid=self.drop_invalid,
            columns=self.columns if path.suffix.lower() in TABLES else None,
        )
        data = reduce_points(data, self.num_points, voxel_size=self.voxel_size, seed=seed)
        if kept is not None:
            try:
                _save(kept, data, stamp)
            except OSError:  # read-only, or full: go on without
                self._cache = None
        return data

    def _cache_file(self, name: str) -> Path | None:
        if self._cache is None:
            return None
        settings: tuple[Any, ...] = (
            3,  # what is read of the same file changed: corners, colours, labels, origins
            self.num_points,
            self.voxel_size,
            self.seed,
            self.drop_invalid,
            self.columns,
        )
        if self._cache != self.root / CACHE:  # other data sets may use it, too
            settings += (str(self.root.resolve()),)
        key = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
        return self._cache / f"{name}.{key}.npz"


def find_files(
    root: Path, test_fraction: float, split_seed: int
) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Find a folder's classes, and path and class index of the files of both splits.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: It is not laid out as :class:`PointFolder` says.
    """
    tops = class_folders(root, SUFFIXES, ".ply")
    # A class may be called "train": such a folder holds files and not folders.
    splits = [s for s in _SPLITS if subfolders(root / s) and not _below(root, s)]
    classes = tops
    if len(splits) == 2:
        classes = _classes_of_splits(root)
        found = {(s, name): _below(root, f"{s}/{name}") for s in _SPLITS for name in classes}
    elif splits and {*tops} - {*splits} <= _VALIDATION:
        other = "test" if splits == ["train"] else "train"
        raise ValueError(f"{root} has a folder {splits[0]} of classes, but no folder {other}")
    elif all({*subfolders(root / top)} & {*_SPLITS} and not _below(root, top) for top in tops):
        found = {(s, name): _below(root, f"{name}/{s}") for s in _SPLITS for name in classes}
    else:
        found = _divided(root, classes, test_fraction, split_seed)
    lacking = [name for name in classes if not any(found[split, name] for split in _SPLITS)]
    if lacking:
        raise ValueError(
            f"no scans in {listed(lacking)} of {root}: expected files of the form "
            f"{root / lacking[0]}/*.ply, or another of {' '.join(SUFFIXES)}; remove what is no "
            "class"
        )
    untrained = [name for name in classes if not found["train", name]]
    if untrained and test_fraction < 1:
        raise ValueError(f"{root}: {listed(untrained)} has test files and no training files")
    return classes, {
        split: [(file, y) for y, name in enumerate(classes) for file in found[split, name]]
        for split in _SPLITS
    }


def _classes_of_splits(root: Path) -> list[str]:
    """The folders in ``train``, which must be those in ``test``."""
    train, test = (subfolders(root / split) for split in _SPLITS)
    if train == test:
        return train
    only = {"train": sorted({*train} - {*test}), "test": sorted({*test} - {*train})}
    raise ValueError(
        f"{root}: the classes of train and test differ: "
        + " and ".join(f"only {s} has {listed(names)}" for s, names in only.items() if names)
        + ". A class without test files needs an empty folder there"
    )


def _divided(
    root: Path, classes: Sequence[str], test_fraction: float, split_seed: int
) -> dict[tuple[str, str], list[str]]:
    """The files of each split and class, where folders do not say what is for testing."""
    everything = {name: _below(root, name) for name in classes}
    _check_splits(root, {file for files in everything.values() for file in files})
    found = {}
    for name, files in everything.items():
        held = _held(files, test_fraction, split_seed)
        found["test", name] = [file for file in files if file in held]
        found["train", name] = [file for file in files if file not in held]
    return found


def other_scans(root: Path, used: Set[str]) -> list[str]:
    """Paths of the scans in a folder and below it that are not among those used, sorted."""
    others = (name for name in files_below(root, SUFFIXES) if name not in used)
    return sorted(name for name in others if _is_scan(root / name))


def _is_scan(path: Path) -> bool:
    if path.suffix.lower() not in (".txt", ".csv"):
        return path.is_file() or (path.is_symlink() and not path.exists())
    try:
        return may_be_table(path)
    except OSError:
        return False


def _check_splits(root: Path, used: Set[str]) -> None:
    """Refuse scans in folders of splits beside those that are in none."""
    deep = [name for name in other_scans(root, used) if name.count("/") > 1] if used else []
    both = {name.split("/")[0] for name in deep} >= set(_SPLITS)
    for name in deep:
        top, below = name.split("/")[:2]
        if below in _SPLITS or (both and top in _SPLITS):
            raise ValueError(
                f"{root}: {name} lies in a folder of a class and a split, {min(used)} does not: "
                "expected folders train and test for all scans or for none"
            )


def _below(root: Path, folder: str) -> list[str]:
    """Paths, below the root, of the scans in one of its folders, which need not be there."""
    if not (root / folder).is_dir():
        return []
    return [f"{folder}/{name}" for name in files_of(root / folder, SUFFIXES)]


def _held(files: Sequence[str], fraction: float, seed: int) -> set[str]:
    """The test files of a class: those with the lowest digests of their names."""
    count = round(fraction * len(files))
    if 0 < fraction < 1 and len(files) > 1:
        count = min(max(count, 1), len(files) - 1)
    elif fraction < 1 and len(files) == 1:
        count = 0

    def digest(name: str) -> str:
        return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()

    return set(sorted(files, key=digest)[:count])


def _save(path: Path, data: Data, stamp: np.ndarray) -> None:
    """Write under a temporary name, then rename: no other process sees half a file."""
    arrays = {field: data[field].numpy() for field in ("pos", *FIELDS) if field in data}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, stamp=stamp, origin=np.array(data.origin), **arrays)


def _load(path: Path, stamp: np.ndarray) -> Data | None:
    """What was kept, if it is whole and of the file as it is now."""
    try:
        # Opened here: of an archive that is damaged, NumPy would leave the file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, Any] = {key: file[key] for key in file.files}
        if not np.array_equal(arrays.pop("stamp"), stamp):
            return None
        x, y, z = arrays.pop("origin").tolist()
        shape = arrays["pos"].shape
        expected = {"label": (shape[:1], np.int64)}
        for key, array in arrays.items():
            if (array.shape, array.dtype) != expected.get(key, (shape, np.float32)):
                return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None  # not there yet, or damaged: the file itself counts
    return Data(origin=(x, y, z), **{key: torch.from_numpy(a) for key, a in arrays.items()})
