"""ScanObjectNN: clouds cut out of scans of rooms, the hardest of them moved, turned and scaled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch_geometric.data import Data

from pointcluster.datasets import fetch
from pointcluster.datasets.cloud_dataset import CloudDataset
from pointcluster.datasets.readers.h5 import read_h5

# In the order of the authors' training_data/shape_names_ext.txt, which is that of the labels.
CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed",
    "pillow", "sink", "sofa", "toilet",
)  # fmt: skip

# variant: what follows "training_" or "test_" in the name of its file
VARIANTS = {
    "OBJ_ONLY": "objectdataset.h5",
    "OBJ_BG": "objectdataset.h5",
    "PB_T25": "objectdataset_augmented25_norot.h5",
    "PB_T25_R": "objectdataset_augmented25rot.h5",
    "PB_T50_R": "objectdataset_augmentedrot.h5",
    "PB_T50_RS": "objectdataset_augmentedrot_scale75.h5",
}
# part: training and test objects in the authors' lists (training_data/<part>.txt)
PARTS = {
    "main_split": (2315, 587),
    "split1": (2319, 583),
    "split2": (2344, 558),
    "split3": (2357, 545),
    "split4": (2346, 556),
}
# Where the files lie, with and without background.
FOLDERS = frozenset(PARTS) | {f"{part}_nobg" for part in PARTS}
# Clouds that papers count in the files of the main split.
PUBLISHED = {"OBJ_ONLY": (2309, 581), "OBJ_BG": (2309, 581), "PB_T50_RS": (11416, 2882)}

ARCHIVE = "h5_files.zip"
MANUAL_STEPS = f"""To get ScanObjectNN:
  1. open https://hkust-vgd.github.io/scanobjectnn/ and accept its authors' terms of use there
  2. fetch {ARCHIVE} with a browser
  3. give the archive, or the folder that it unpacks to, as root (--root)
datasets/scanobjectnn/README.md tells more"""


class ScanObjectNN(CloudDataset):
    r"""Real objects in 15 classes from `"Revisiting Point Cloud Classification"
    <https://arxiv.org/abs/1908.04616>`_, in the authors' HDF5 form.

    ====================  ==============================================  ==========================
    variant               what it is                                      its file, after
                                                                          ``training_`` or ``test_``
    ====================  ==============================================  ==========================
    ``OBJ_ONLY``          the object's points alone                       ``objectdataset``, in
                                                                          ``main_split_nobg/``
    ``OBJ_BG``            all points in its box                           ``objectdataset``
    ``PB_T25``            box moved by up to 25 % of its size, 5 times    ``..augmented25_norot``
    ``PB_T25_R``          and turned about the up axis                    ``..augmented25rot``
    ``PB_T50_R``          moved by up to 50 %, and turned                 ``..augmentedrot``
    ``PB_T50_RS``         and scaled: the one that most papers report     ``..augmentedrot_scale75``
    ====================  ==============================================  ==========================

    Args:
        root: The archive ``h5_files.zip``, of which the one file that is needed is unpacked beside
            it; or the folder it unpacks to, the one above, or a single ``main_split`` in it.
        split: ``"train"`` or ``"test"``.
        variant: One of the table.
        background: Whether points around the object are there; without them the files are those in
            ``<part>_nobg``. By default yes, but for ``OBJ_ONLY``.
        part: ``"main_split"``, on which papers report, or ``"split1"`` to ``"split4"``.
        transform: Applied to every item when it is read.
        sizes: Clouds that the two splits must have. ``"published"``: as many as papers count in the
            main split's ``OBJ_ONLY``, ``OBJ_BG`` (2,309 and 581) and ``PB_T50_RS`` (11,416 and
            2,882), elsewhere 95 % to 100 % of what the authors' lists of objects make possible.
            ``None`` takes them as they are.

    Shapes and units:
        Items are ``Data(pos [2048, 3] float32, y [1] int64)`` and, where the file has it, ``mask
        [2048] bool``, true on the object. Positions are the file's; the second axis points up. The
        first n points are a sample too. Copies of one object in a ``PB`` variant are on one side of
        the split, but nothing in a file tells which they are: a validation set that is carved out
        of the training split shares objects with the rest of it.

    Raises:
        FileNotFoundError: The file is not there; the message says how to get it.
        ValueError: An argument is unknown, ``variant`` and ``background`` contradict each other, or
            a file is damaged or is not what the benchmark has.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        variant: str = "PB_T50_RS",
        background: bool | None = None,
        part: str = "main_split",
        transform: Callable[[Data], Data] | None = None,
        sizes: tuple[int, int] | str | None = "published",
    ) -> None:
        super().__init__(split, transform, sizes)
        self.background = check_variant(variant, background, part)
        self.variant, self.part = variant, part
        self.classes = list(CLASSES)
        folder = part if self.background else f"{part}_nobg"
        name = f"{'training' if split == 'train' else 'test'}_{VARIANTS[variant]}"
        path = _locate(Path(root).expanduser(), folder, name)
        arrays = read_h5(path, len(CLASSES), dtypes=("float32", "float64"), mask=True)
        if "mask" in arrays:  # -1 is background, anything else the object or a part of it
            arrays["mask"] = arrays["mask"] != -1
        points = {key: torch.from_numpy(array) for key, array in arrays.items()}
        self.keep(path, published=_bounds(variant, self.background, part, split), **points)

    @property
    def name(self) -> str:
        """Such as "ScanObjectNN PB_T50_RS with background, main split"."""
        words = "main split" if self.part == "main_split" else f"split {self.part[-1]}"
        with_it = "with" if self.background else "without"
        return f"ScanObjectNN {self.variant} {with_it} background, {words}"

    def __repr__(self) -> str:
        return (
            f"ScanObjectNN({len(self)}, split={self.split!r}, variant={self.variant!r}, "
            f"background={self.background}, part={self.part!r})"
        )


def check_variant(variant: str, background: bool | None, part: str) -> bool:
    """Whether there is background, where the three fit together.

    Raises:
        ValueError: One is unknown, or the first two contradict each other.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}, expected one of {', '.join(VARIANTS)}")
    if part not in PARTS:
        raise ValueError(f"part is {part!r}, expected one of {', '.join(PARTS)}")
    if background not in (None, True, False):
        raise ValueError(f"background is {background!r}, expected True, False or None")
    own = {"OBJ_ONLY": False, "OBJ_BG": True}.get(variant)
    if own is not None and background not in (None, own):
        other = "OBJ_BG" if background else "OBJ_ONLY"
        raise ValueError(
            f"variant {variant!r} is the one {'with' if own else 'without'} background: leave "
            f"background={background} out, or take {other!r}"
        )
    return own if own is not None else background is not False


def _locate(root: Path, folder: str, name: str) -> Path:
    """A file of a folder of the benchmark, unpacked from the archive where only that is there."""
    if root.is_file():
        return _from_archive(root, folder, name)
    inside = _folder_of_part(root)
    above = inside.parent if inside else root
    for depth in ("", "*/", "*/*/"):
        found = [
            path
            for path in sorted(above.glob(f"{depth}{folder}/{name}"))
            if path.is_file() and "__MACOSX" not in path.parts
        ]
        if len(found) > 1:
            raise ValueError(
                f"{root} holds {found[0]} and {found[1]}: give the folder above one of them as root"
            )
        if found:
            return found[0]
    if (root / name).is_file() and not inside:
        raise ValueError(
            f"{root / name} lies in a folder that does not tell whether its clouds have "
            f"background: put it into a folder named {folder}, if that is where it comes from"
        )
    if (root / ARCHIVE).is_file():
        return _from_archive(root / ARCHIVE, folder, name)
    raise FileNotFoundError(f"no {folder}/{name} in {root}\n{MANUAL_STEPS}")


def find_scanobjectnn(root: str | os.PathLike[str]) -> bool:
    """Whether there is the archive, or any of its folders, at or in ``root``."""
    root = Path(root).expanduser()
    if root.is_file() or (root / ARCHIVE).is_file():
        return True
    depths = ("*", "*/*", "*/*/*")
    return _folder_of_part(root) is not None or any(
        path.name in FOLDERS and path.is_dir() for depth in depths for path in root.glob(depth)
    )


def _folder_of_part(root: Path) -> Path | None:
    """The root, where it is a folder of one part by its own name or by that of a link's target."""
    whole = (Path(os.path.abspath(root)), root.resolve())  # root may be "." or ".."
    return next((path for path in whole if path.name in FOLDERS), None)


def check_archive(archive: Path) -> None:
    """Refuse an archive in which there is no file of the benchmark.

    Raises:
        ValueError: It is no zip archive, or another one.
    """
    fetch.check_zip(archive)
    with fetch.open_zip(archive) as file:
        found = {"/".join(name.split("/")[-2:]) for name in file.namelist()}
    names = [f"{split}_{name}" for split in ("training", "test") for name in VARIANTS.values()]
    if not found & {f"{folder}/{name}" for folder in FOLDERS for name in names}:
        raise ValueError(f"a zip archive that holds no {next(iter(PARTS))}/{names[-1]}")


def _from_archive(archive: Path, folder: str, name: str) -> Path:
    try:
        with fetch.open_zip(archive) as file:
            members = [
                member
                for member in file.infolist()
                if f"/{member.filename}".endswith(f"/{folder}/{name}")
                and "__MACOSX" not in member.filename.split("/")
            ]
    except fetch.DamagedArchive as error:
        raise ValueError(
            f"{error}; root must be the archive {ARCHIVE} or the folder it unpacks to"
        ) from error
    if not members:
        raise FileNotFoundError(f"{folder}/{name} is not there in {archive}\n{MANUAL_STEPS}")
    if len(members) > 1:
        names = " and ".join(member.filename for member in members[:2])
        raise ValueError(f"{archive} holds {names}: unpack it and give one of the folders as root")
    target = archive.with_suffix("") if archive.suffix else archive.with_name(f"{archive.name}_h5")
    path = target / members[0].filename
    whole = path.is_file() and path.stat().st_size == members[0].file_size
    if not whole or path.stat().st_mtime < archive.stat().st_mtime:
        fetch.unpack(archive, target, [members[0].filename])
    return path


def _bounds(variant: str, background: bool, part: str, split: str) -> tuple[int, int]:
    """The least and the most clouds a file can have."""
    test = split == "test"
    if part == "main_split" and variant in PUBLISHED and (background or variant == "OBJ_ONLY"):
        exact = PUBLISHED[variant][test]
        return exact, exact
    # Five copies of each object, less what kept fewer than 2,048 points of it.
    most = PARTS[part][test] * (5 if variant.startswith("PB") else 1)
    return int(0.95 * most), most
