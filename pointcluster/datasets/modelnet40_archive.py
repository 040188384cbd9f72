"""Where ModelNet40's forms are, and how they come there from their archives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from pointcluster.datasets import modelnet40_meshes as meshes
from pointcluster.datasets import modelnet40_resampled as resampled
from pointcluster.datasets.modelnet40_resampled import read_lines

FOLDER = "modelnet40_ply_hdf5_2048"

# In the order in which they are tried. None could be reached from where this was written.
MIRRORS = (
    "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
    "https://github.com/ma-xu/pointMLP-pytorch/releases/download/Modenet40_dataset/"
    "modelnet40_ply_hdf5_2048.zip",
    "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip",
)

MANUAL_STEPS = f"""To get ModelNet40 by hand:
  1. fetch {FOLDER}.zip (about 435 MB) with a browser, for example from
     {MIRRORS[1]}
  2. unpack it: the folder {FOLDER} holds train_files.txt and seven .h5 files
  3. give that folder, or the one above it, as root (--root)"""
MANUAL_STEPS_RESAMPLED = f"""To get ModelNet40's text files of 10,000 points with normals:
  1. fetch {resampled.FOLDER}.zip (1.6 GB) with a browser from
     https://shapenet.cs.stanford.edu/media/{resampled.FOLDER}.zip
     or, where that does not answer, a copy that datasets/modelnet40/README.md names
  2. python datasets/fetch.py modelnet40_resampled --root THE_ARCHIVE unpacks it beside itself and
     reads all of it once; a folder that was unpacked by hand can be given, too
  3. python examples/modelnet40.py --form resampled --root THE_FOLDER_ABOVE"""
MANUAL_STEPS_MESHES = f"""To get ModelNet40's meshes:
  1. fetch {meshes.FOLDER}.zip (2 GB) with a browser from https://modelnet.cs.princeton.edu
  2. python datasets/fetch.py modelnet40_meshes --root THE_ARCHIVE unpacks it beside itself and
     draws points from all meshes once; a folder that was unpacked by hand, or the one that PyTorch
     Geometric's ModelNet made, can be given, too
  3. python examples/modelnet40.py --form meshes --root THE_FOLDER_ABOVE
or let PyTorch Geometric fetch the archive, which it does over plain http, so that nothing proves
what comes: python datasets/fetch.py modelnet40_meshes --pyg"""

# form: how results name it, folder, what shows that it is there, training and test clouds
FORMS = {
    "hdf5": ("HDF5", FOLDER, "train_files.txt", (9840, 2468)),
    "resampled": ("resampled", resampled.FOLDER, resampled.NAMES, (9843, 2468)),
    "meshes": ("meshes", meshes.FOLDER, "*/train/*.off", (9843, 2468)),
}


def find_modelnet40(root: str | os.PathLike[str], form: str = "hdf5") -> Path | None:
    """The folder with a form of the benchmark: ``root``, the one inside it, or ``None``."""
    _, name, sign, _ = FORMS[form]
    folders = [Path(root).expanduser(), Path(root).expanduser() / name]
    if form == "meshes":
        folders.append(folders[0] / "raw")  # where PyTorch Geometric's ModelNet puts them
    for folder in folders:
        if any(path.is_file() for path in folder.glob(sign)):
            return folder
    return None


def find_archive(root: str | os.PathLike[str], form: str = "hdf5") -> Path | None:
    """The archive of a form: ``root`` itself, one in it, one beside the form's folder, or ``None``.

    Args:
        root: A zip archive of any name, or the folder in which the one with the form's name lies;
            where ``root`` is the folder that it unpacks to, also the folder above.
        form: One of ``FORMS``.
    """
    root = Path(root).expanduser()
    archives = [root, root / f"{FORMS[form][1]}.zip"]
    if find_modelnet40(root, form) == root:
        archives.append(root.resolve().parent / f"{FORMS[form][1]}.zip")
    return next((path for path in archives if path.is_file()), None)


def unpack_modelnet40(root: str | os.PathLike[str], form: str = "hdf5") -> Path | None:
    """The folder of a form, unpacked from its archive where it is not there yet or is not whole.

    Args:
        root: As for :func:`find_archive`.
        form: One of ``FORMS``.

    Returns:
        The folder; ``None`` where there is neither.

    Raises:
        DamagedArchive: The archive is not whole, and there is no folder either.
        ValueError: The archive holds something else.
    """
    from pointcluster.datasets.fetch import DamagedArchive, lacks, unpack_folder

    root = Path(root).expanduser()
    archive = find_archive(root, form)
    if archive == root:
        root = root.parent
    folder, (_, name, sign, _) = find_modelnet40(root, form), FORMS[form]
    if archive is None:
        return folder
    try:
        if folder is None or lacks(folder, archive, sign):
            folder = folder or root / name
            unpack_folder(archive, folder, sign)
    except DamagedArchive:
        if find_modelnet40(root, form) is None:
            raise
    return folder


def fetch_modelnet40(root: str | os.PathLike[str], urls: Sequence[str] = MIRRORS) -> Path:
    """The folder of the HDF5 form, unpacked or downloaded where it is not there or not whole.

    An archive that is there is unpacked; it is fetched where there is none, and again, with a
    warning, where it is damaged.

    Args:
        root: Gets the archive, its SHA-256 and the folder; or an archive, which is unpacked beside
            itself.
        urls: Where the archive may be had, in the order in which they are tried.

    Returns:
        The folder with the benchmark's lists and all files that they name.

    Raises:
        OSError: No address gave it; the message says what to do by hand.
        ValueError: What came is not the archive, or ``root`` is one and is damaged.
    """
    from pointcluster.datasets.fetch import DamagedArchive, check_zip, download

    root = Path(root).expanduser()
    try:
        folder = unpack_modelnet40(root)
    except DamagedArchive as error:
        if root.is_file():
            raise
        warnings.warn(f"{error}: it is fetched again", stacklevel=2)
        folder = None
    if folder is not None and missing_file(folder) is None:
        return folder
    if root.is_file():
        raise ValueError(f"{root} lacks {missing_file(folder or root)}: delete it, fetch it again")
    archive = root / f"{FOLDER}.zip"
    try:
        download(urls, archive, check=check_zip)
    except OSError as error:
        old = f" ({archive} is there, but is damaged or not whole: delete it)"
        there = old if archive.exists() else ""
        raise OSError(f"ModelNet40 could not be fetched{there}: {error}\n{MANUAL_STEPS}") from error
    folder = unpack_modelnet40(root)
    missing = missing_file(folder or root / FOLDER)
    if folder is None or missing:
        raise ValueError(f"{archive} lacks {missing}: it is not ModelNet40's HDF5 form; delete it")
    return folder


def missing_file(folder: Path) -> str | None:
    """The first of the HDF5 form's lists, or of the files that they name, that is not there."""
    for split in ("train", "test"):
        listing = folder / f"{split}_files.txt"
        if not listing.is_file():
            return listing.name
        for line in read_lines(listing):
            if not (folder / Path(line).name).is_file():
                return Path(line).name
    return None if (folder / "shape_names.txt").is_file() else "shape_names.txt"
