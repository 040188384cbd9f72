"""Tell the class of every point of scans: ``python -m pointcluster.segment MODEL SCAN...``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from pointcluster.datasets.readers.points import SUFFIXES, find_scans
from pointcluster.datasets.scan_file import UNITS, ScanFile
from pointcluster.datasets.scenes import SceneSurvey, check_features
from pointcluster.datasets.write_las import write_las
from pointcluster.files import replacing
from pointcluster.models import PointCoCSeg
from pointcluster.models.factory import FOLDER, list_pretrained, load_model
from pointcluster.models.stitch import BlockGrid, SceneSegmenter

FIELD = "classification"


class Segmenter(NamedTuple):
    """A network that tells classes of points, and what it takes."""

    model: Any
    classes: list[str]
    codes: list[int]
    """What each class is written as."""
    features: list[str]
    edge: float
    """Edge of the blocks, in metres."""
    num_points: int
    """Points of the blocks that it was trained on."""
    voxel_size: float

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Segmenter:
        """Read a network that ``examples/segment_scans.py`` saved.

        Args:
            path: ``model.safetensors``, with ``model.json`` beside it, or the name of the data set
                that weights in this package were trained on, ``"lidar_hd"``.
            device: Where it is to run.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, or its network does not tell the class of points.
        """
        for name, data in list_pretrained(task="segmentation"):
            if data == str(path) and not Path(path).exists():
                path = FOLDER / f"{name}-{data}"
        model, noted = load_model(path)
        name = model.config["name"]
        prepared: Any = noted.get("preprocessing") or {}
        noted_all = {"edge", "num_points", "features"} <= set(prepared)
        if not isinstance(model, PointCoCSeg) or not noted_all:
            raise ValueError(
                f"{path} holds {name!r} for whole clouds or pictures, expected a network that "
                "tells the class of every point, as examples/segment_scans.py trains one"
            )
        classes = [str(kind) for kind in noted.get("classes", [])]
        codes = [int(code) for code in prepared.get("codes", range(len(classes)))]
        features = [str(each) for each in prepared["features"]]
        if not len(classes) == len(codes) == model.num_classes:
            raise ValueError(f"{path} names {len(classes)} classes with {len(codes)} codes, its "
                             f"network knows {model.num_classes}")  # fmt: skip
        if check_features(features) != model.in_channels:
            raise ValueError(f"{path} names the features {', '.join(features)}, its network takes "
                             f"{model.in_channels} channels")  # fmt: skip
        return cls(
            model.float().to(device).eval(),
            classes,
            codes,
            features,
            float(prepared["edge"]),
            int(prepared["num_points"]),
            float(prepared.get("voxel_size", 0.0)),
        )


def segment_file(
    segmenter: Segmenter,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    field: str | None = None,
    unit: str | None = None,
    columns: str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Write a scan again with the class of every point.

    The scan is read in pieces, put in order on disk in the folder of temporary files (about 40
    bytes a point), and segmented block by block: memory does not grow with it, but for formats
    other than LAS and LAZ, which are read as a whole.

    Args:
        segmenter: The network.
        source: The scan.
        target: Where to, ``.las`` or ``.laz`` for such scans, else ``.ply`` or ``.npy``; it appears
            whole or not at all.
        field: Write classes to an extra dimension of this name, or as this property; of ``.las``
            and ``.laz`` the classification is replaced if it is not said.
        unit: What coordinates are in, as :class:`~pointcluster.datasets.scan_file.ScanFile` takes
            it.
        columns: What the columns of a table are, likewise.
        progress: Show bars.

    Returns:
        How many points of each class there are.

    Raises:
        ImportError, OSError, ValueError: The scan cannot be read, or has not what the network was
            trained with; the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the scan itself: give another folder with --out")
    scan = ScanFile(source, unit=unit, columns=columns)
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        classes = _classes(segmenter, scan, Path(folder), progress)
        with _bar(progress, scan.num_points, "writing") as say:
            if scan.is_las:
                write_las(source, target, lambda a, b: classes[a:b], field=field, say=say)
            else:
                write_points(scan, target, classes, field or FIELD)
        counts = np.bincount(classes, minlength=256)
    return counts[np.array(segmenter.codes)]


def _classes(segmenter: Segmenter, scan: ScanFile, folder: Path, progress: bool) -> np.ndarray:
    """The code of every point's class, in the file's order. [N] uint8"""
    with _bar(progress, scan.num_points, "looking") as say:
        survey = SceneSurvey(scan, segmenter.features, say=say)
    grid = BlockGrid.over(survey.low, survey.high, segmenter.edge)
    number, cells = scan.num_points, grid.shape[0] * grid.shape[1]
    counts = np.zeros(cells + 1, np.int64)
    for points in scan.pieces():
        counts[1:] += np.bincount(grid.cells_of(points["pos"]), minlength=cells)
    starts = counts.cumsum()
    # Sorted by the grid's cells, so that a block is a few slices; `place` leads back.
    channels = segmenter.model.in_channels
    pos = _on_disk(folder / "pos", (number, 3), np.float32)
    x = _on_disk(folder / "x", (number, channels), np.float32)
    place = _on_disk(folder / "place", (number,), np.int64)
    probabilities = _on_disk(folder / "probabilities", (number, len(segmenter.codes)), np.float32)
    free, begin = starts[:-1].copy(), 0
    with _bar(progress, number, "sorting") as say:
        for points in scan.pieces():
            cell = grid.cells_of(points["pos"])
            order = np.argsort(cell, kind="stable")
            here, first, count = np.unique(cell[order], return_index=True, return_counts=True)
            rank = np.arange(len(cell)) - np.repeat(first, count)
            where = np.empty_like(order)
            where[order] = np.repeat(free[here], count) + rank
            free[here] += count
            pos[where], x[where] = points["pos"], survey.features(points)
            place[begin : begin + len(cell)] = where
            begin += len(cell)
            say(len(cell))
    runner = SceneSegmenter(
        segmenter.model, num_points=segmenter.num_points, voxel_size=segmenter.voxel_size
    )
    with _bar(progress, number, "segmenting") as say:
        runner.run(grid, starts, pos, x, probabilities, say=say)
    codes = np.array(segmenter.codes, np.uint8)
    classes = np.empty(number, np.uint8)
    step = 1 << 20
    for start in range(0, number, step):
        rows = place[start : start + step]
        classes[start : start + step] = codes[probabilities[rows].argmax(axis=1)]
    return classes


def _on_disk(path: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros in a file, for which there is room on the disk.

    Raises:
        OSError: There is not.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:  # which does not name the file
                raise OSError(error.errno, error.strerror, str(path)) from error
        else:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", shape=shape)


def write_points(scan: ScanFile, target: Path, classes: np.ndarray, field: str) -> None:
    """Write positions, what the file has of normals and colours, and classes: PLY or NPY."""
    kinds = [("x", "<f8"), ("y", "<f8"), ("z", "<f8")]
    (points,) = scan.pieces(scan.num_points)
    columns = {"x y z": (points["pos"] + np.array(scan.origin)) / scan.scale}
    if "normal" in points:
        kinds += [(name, "<f4") for name in ("nx", "ny", "nz")]
        columns["nx ny nz"] = points["normal"]
    if "color" in points:
        kinds += [(name, "u1") for name in ("red", "green", "blue")]
        columns["red green blue"] = (points["color"] * 255).round()
    rows = np.zeros(scan.num_points, [*kinds, (field, "u1")])
    for names, values in columns.items():
        for axis, name in enumerate(names.split()):
            rows[name] = values[:, axis]
    rows[field] = classes
    with replacing(target) as temporary, open(temporary, "wb") as file:
        if target.suffix.lower() == ".npy":
            # What numpy writes to a file itself may be lost without a word where the disk is full.
            head = np.lib.format.header_data_from_array_1_0(rows)
            np.lib.format.write_array_header_1_0(file, head)
            file.write(rows.tobytes())
            return
        words = {"<f8": "double", "<f4": "float", "u1": "uchar"}
        lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
        lines += [f"property {words[kind]} {name}" for name, kind in [*kinds, (field, "u1")]]
        file.write("\n".join([*lines, "end_header", ""]).encode())
        file.write(rows.tobytes())


@contextmanager
def _bar(show: bool, total: int, what: str) -> Iterator[Callable[[int], Any]]:
    """A bar over points; what went through twice does not lengthen it."""
    if not show:
        yield lambda points: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" points", unit_scale=True, desc=what, leave=False) as bar:
        yield lambda points: bar.update(min(points, total - bar.n))


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pointcluster.segment",
        description="Tell the class of every point of scans with a trained network.",
        epilog="exit status: 0, 2 where a scan could not be read or written, 130 after Ctrl-C",
    )
    add = parser.add_argument
    add("model", help="the network: model.safetensors, with model.json beside it; or lidar_hd, "
        "weights that come with the package")  # fmt: skip
    add("scans", nargs="+", metavar="scan", help=f"a file ({' '.join(SUFFIXES)}), or a folder")
    add("--out", type=Path, default=Path("segmented"), metavar="FOLDER",
        help="where results go, under the scans' names (%(default)s)")  # fmt: skip
    add("--field", metavar="NAME", help="write classes to an extra dimension of this name and "
        "leave the classification as it is")  # fmt: skip
    add("--unit", choices=UNITS, metavar="NAME", help=f"what coordinates are in: "
        f"{', '.join(UNITS)} (as the file says; metres where it does not)")  # fmt: skip
    add("--columns", metavar="NAMES", help="what the columns of tables are, such as 'x y z - r g "
        "b'; - is one to leave out")  # fmt: skip
    add("--device", type=torch.device, default="cpu", help="where the network runs (%(default)s)")
    add("--quiet", action="store_true", help="print errors alone")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; a scan that cannot be read is said, and the others are still segmented."""
    options = _parser().parse_args(arguments)
    try:
        segmenter = Segmenter.load(options.model, options.device)
        scans = named_scans(options.scans)
    except (AssertionError, ImportError, OSError, RuntimeError, ValueError) as error:
        return _failed(error)
    status = 0
    for source, result in scans:
        target = options.out / result
        try:
            said = ScanFile(source, columns=options.columns).said_unit if not options.unit else None
            if said not in (None, "metre") and not options.quiet:
                print(f"{source} is in feet, as it says ({said}): the network gets metres")
            counts = segment_file(
                segmenter,
                source,
                target,
                field=options.field,
                unit=options.unit,
                columns=options.columns,
                progress=sys.stderr.isatty() and not options.quiet,
            )
        except KeyboardInterrupt:
            print(f"interrupted: {target} was not written", file=sys.stderr, flush=True)
            return 130
        except (ImportError, OSError, ValueError) as error:
            status = _failed(error)
            continue
        except MemoryError:
            status = _failed(MemoryError(f"{source}: there is not enough memory for it"))
            continue
        if not options.quiet:
            shares = counts / max(1, counts.sum())
            named = zip(segmenter.classes, shares, strict=True)
            parts = [f"{name} {share:.1%}" for name, share in named]
            print(f"{target}  {counts.sum():,} points: {', '.join(parts)}", flush=True)
    return status


def named_scans(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, Path]]:
    """The files among paths, and those in folders among them, with the names of their results.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A folder has no scans, or two results would have one name.
    """
    named: dict[Path, Path] = {}
    for path in map(Path, paths):
        for source in find_scans([path]):
            below = source.relative_to(path) if path.is_dir() else Path(source.name)
            result = below.with_suffix(_suffix(source))
            if result in named:
                raise ValueError(f"{named[result]} and {source} would both be written to {result}")
            named[result] = source
    return [(source, result) for result, source in named.items()]


def _suffix(source: Path) -> str:
    """What a result is: as its scan is, or PLY where that cannot be written."""
    suffix = source.suffix.lower()
    return suffix if suffix in (".las", ".laz", ".ply", ".npy") else ".ply"


def _failed(error: BaseException) -> int:
    """Say what is wrong in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    print("error:", " ".join(text.split()), file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
