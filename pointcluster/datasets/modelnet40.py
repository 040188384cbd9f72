"""ModelNet40 in the three forms that the point-cloud literature uses."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import SamplePoints

from pointcluster.datasets import fetch
from pointcluster.datasets.cloud_dataset import CloudDataset, cached, fingerprint
from pointcluster.datasets.readers.h5 import read_h5
from pointcluster.datasets.readers.off import read_off
from pointcluster.datasets.readers.polygons import triangulate
from pointcluster.datasets.readers.whole import whole

POINTS = 10_000
"""Points of each text file."""
NAMES = "modelnet40_shape_names.txt"
# form: how results name it, folder, what shows that it is there, training and test clouds
FORMS = {
    "hdf5": ("HDF5", "modelnet40_ply_hdf5_2048", "train_files.txt", (9840, 2468)),
    "resampled": ("resampled", "modelnet40_normal_resampled", NAMES, (9843, 2468)),
    "meshes": ("meshes", "ModelNet40", "*/train/*.off", (9843, 2468)),
}

# In the order in which they are tried. None could be reached from where this was written.
MIRRORS = (
    "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
    "https://github.com/ma-xu/pointMLP-pytorch/releases/download/Modenet40_dataset/"
    "modelnet40_ply_hdf5_2048.zip",
    "https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip",
)

MANUAL_STEPS = {
    "hdf5": f"""To get ModelNet40 by hand:
  1. fetch modelnet40_ply_hdf5_2048.zip (about 435 MB) with a browser, for example from
     {MIRRORS[1]}
  2. unpack it: the folder modelnet40_ply_hdf5_2048 holds train_files.txt and seven .h5 files
  3. give that folder, or the one above it, as root (--root)""",
    "resampled": """To get ModelNet40's text files of 10,000 points with normals:
  1. fetch modelnet40_normal_resampled.zip (1.6 GB) with a browser from
     https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip
     or, where that does not answer, a copy that datasets/modelnet40/README.md names
  2. python datasets/fetch.py modelnet40_resampled --root THE_ARCHIVE unpacks it beside itself and
     reads all of it once; a folder that was unpacked by hand can be given, too
  3. python examples/modelnet40.py --form resampled --root THE_FOLDER_ABOVE""",
    "meshes": """To get ModelNet40's meshes:
  1. fetch ModelNet40.zip (2 GB) with a browser from https://modelnet.cs.princeton.edu
  2. python datasets/fetch.py modelnet40_meshes --root THE_ARCHIVE unpacks it beside itself and
     draws points from all meshes once; a folder that was unpacked by hand, or the one that PyTorch
     Geometric's ModelNet made, can be given, too
  3. python examples/modelnet40.py --form meshes --root THE_FOLDER_ABOVE
or let PyTorch Geometric fetch the archive, which it does over plain http, so that nothing proves
what comes: python datasets/fetch.py modelnet40_meshes --pyg""",
}


class ModelNet40(CloudDataset):
    r"""The 40-class benchmark of `"3D ShapeNets" <https://arxiv.org/abs/1406.5670>`_.

    Papers report on three forms of it, which are not the same clouds: say which with a result, as
    :attr:`name` does.

    =============== ============================== ============== ==================================
    form            folder                         clouds         points of each
    =============== ============================== ============== ==================================
    ``"hdf5"``      ``modelnet40_ply_hdf5_2048``   9,840 + 2,468  2,048 with normals (`"PointNet"
                                                                  <https://arxiv.org/abs/1612.00593>`_)
    ``"resampled"`` ``modelnet40_normal_resampled`` 9,843 + 2,468 10,000 with normals (`"PointNet++"
                                                                  <https://arxiv.org/abs/1706.02413>`_)
    ``"meshes"``    ``ModelNet40``                 9,843 + 2,468  the meshes themselves: points are
                                                                  drawn evenly by area, with normals
    =============== ============================== ============== ==================================

    The text files and the meshes take minutes to read: it is done once, and the clouds are kept
    as ``*.safetensors`` in their folder (2.4 GB for the text files' training split) until a
    file changes.

    Args:
        root: The folder of the form, or the one it lies in.
        split: ``"train"`` or ``"test"``.
        form: One of the table.
        num_points: Points a cloud: the first ones, of meshes as many as are drawn (2,048). All by
            default.
        seed: Of drawing points from meshes; the other forms draw nothing and refuse it.
        normals: ``True`` must have them, ``False`` leaves them out. By default they are given
            where the files have them, as the genuine ones of all forms do; some copies of the HDF5
            form were written anew without.
        download: Fetch the HDF5 archive (about 435 MB) into ``root`` and unpack it, where that was
            not done yet or was interrupted.
        transform: Applied to every item when it is read.
        sizes: Clouds that the two splits must have: ``"published"`` as in the table, or two
            numbers; ``None`` takes them as they are.

    Shapes and units:
        Items are ``Data(pos [num_points, 3] float32, y [1] int64)``, with ``normal [num_points, 3]
        float32`` of length one where the files have them. Clouds lie in the unit sphere, the second
        axis points up.

    Raises:
        FileNotFoundError: The folder, or a file that its lists name, is missing.
        ValueError: An argument is unknown or does not fit the form, a file is damaged or is not
            what the benchmark has, or lacks normals that are asked for or that other files of the
            split have; names file, found, expected.
        OSError: The download failed; the message says what to do by hand.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        *,
        form: str = "hdf5",
        num_points: int | None = None,
        seed: int | None = None,
        normals: bool | None = None,
        download: bool = False,
        transform: Callable[[Data], Data] | None = None,
        sizes: tuple[int, int] | str | None = "published",
    ) -> None:
        super().__init__(split, transform, sizes)
        if form not in FORMS:
            raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
        most = {"hdf5": 2048, "resampled": POINTS}.get(form)
        if num_points is not None and not 1 <= num_points <= (most or num_points):
            limit = f"1 to {most:,}" if most else "at least 1"
            raise ValueError(f"num_points is {num_points}, expected {limit} for form {form!r}")
        if seed is not None and (form != "meshes" or seed < 0):
            raise ValueError(
                f"seed is {seed}: form {form!r} has its points already"
                if form != "meshes"
                else f"seed is {seed}, expected at least 0"
            )
        if download and form != "hdf5":
            raise ValueError(
                f"form {form!r} is not fetched by this program: python datasets/fetch.py "
                f"modelnet40_{form} tells how to get it, as does datasets/modelnet40/README.md"
            )
        folder = fetch_modelnet40(root) if download else find_modelnet40(root, form)
        if folder is None:
            raise FileNotFoundError(_not_there(Path(root), form))
        self.form, self.seed = form, (seed or 0) if form == "meshes" else None
        if form == "hdf5":
            self.classes, points = _read_hdf5(folder, split, num_points, normals)
        elif form == "resampled":
            self.classes, points = _read_resampled(folder, split, num_points)
        else:
            self.classes, points = _sample_meshes(folder, split, num_points or 2048, seed or 0)
        if normals is False:
            points.pop("normal", None)
        number = FORMS[form][3][split == "test"]
        self.keep(folder, published=(number, number), **points)

    @property
    def name(self) -> str:
        """Such as "ModelNet40 HDF5" or "ModelNet40 meshes, sampled with seed 0"."""
        drawn = "" if self.seed is None else f", sampled with seed {self.seed}"
        return f"ModelNet40 {FORMS[self.form][0]}{drawn}"

    def __repr__(self) -> str:
        form = "" if self.form == "hdf5" else f", form={self.form!r}"
        return f"ModelNet40({len(self)}, split={self.split!r}{form})"


def _not_there(root: Path, form: str) -> str:
    _, name, sign, _ = FORMS[form]
    others = [other for other in FORMS if other != form and find_modelnet40(root, other)]
    there = f"; it holds the form {others[0]!r}" if others else ""
    archive = find_archive(root, form)
    if archive is not None:
        program = "modelnet40" if form == "hdf5" else f"modelnet40_{form}"
        there += f"; {archive} is not unpacked: python datasets/fetch.py {program} --root {root}"
    return (
        f"no ModelNet40 in {root}: expected {sign} there or in {name}/{there} "
        "(datasets/modelnet40/README.md tells how to get it)"
    )


# --- where it is, and how it comes there ---------------------------------------------------------


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
    """The archive of a form: ``root`` itself, one of the form's name in it, or ``None``.

    Where ``root`` is the folder that the archive unpacks to, it may lie beside that.
    """
    root = Path(root).expanduser()
    archives = [root, root / f"{FORMS[form][1]}.zip"]
    if find_modelnet40(root, form) == root:
        archives.append(root.resolve().parent / f"{FORMS[form][1]}.zip")
    return next((path for path in archives if path.is_file()), None)


def unpack_modelnet40(root: str | os.PathLike[str], form: str = "hdf5") -> Path | None:
    """The folder of a form, unpacked from its archive where it is not there yet or is not whole.

    ``None`` where there is neither; the archive is where :func:`find_archive` says.

    Raises:
        DamagedArchive: The archive is not whole, and there is no folder either.
        ValueError: The archive holds something else.
    """
    root = Path(root).expanduser()
    archive = find_archive(root, form)
    if archive == root:
        root = root.parent
    folder, (_, name, sign, _) = find_modelnet40(root, form), FORMS[form]
    if archive is None:
        return folder
    try:
        fetch.unpack_folder(archive, folder or root / name, sign)
    except fetch.DamagedArchive:
        if folder is None:
            raise
    return folder or root / name


def fetch_modelnet40(root: str | os.PathLike[str], urls: Sequence[str] = MIRRORS) -> Path:
    """The folder of the HDF5 form, unpacked or downloaded where it is not there or not whole.

    An archive that is there is unpacked; it is fetched where there is none, and again, with a
    warning, where it is damaged. All lists and the files that they name are there then.

    Args:
        root: Gets the archive, its SHA-256 and the folder; or an archive, which is unpacked beside
            itself.
        urls: Where the archive may be had, in the order in which they are tried.

    Raises:
        OSError: No address gave it; the message says what to do by hand.
        ValueError: What came is not the archive, or ``root`` is one and is damaged.
    """
    root = Path(root).expanduser()
    try:
        folder = unpack_modelnet40(root)
    except fetch.DamagedArchive as error:
        if root.is_file():
            raise
        warnings.warn(f"{error}: it is fetched again", stacklevel=2)
        folder = None
    if folder is not None and missing_file(folder) is None:
        return folder
    if root.is_file():
        raise ValueError(f"{root} lacks {missing_file(folder or root)}: delete it, fetch it again")
    archive = root / f"{FORMS['hdf5'][1]}.zip"
    try:
        fetch.download(urls, archive, check=fetch.check_zip)
    except OSError as error:
        old = f" ({archive} is there, but is damaged or not whole: delete it)"
        there = old if archive.exists() else ""
        raise OSError(
            f"ModelNet40 could not be fetched{there}: {error}\n{MANUAL_STEPS['hdf5']}"
        ) from error
    folder = unpack_modelnet40(root)
    missing = missing_file(folder or root / FORMS["hdf5"][1])
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


def read_lines(path: Path) -> list[str]:
    """The lines of a list that belongs to the data set, without empty ones.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is part of ModelNet40's files")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty")
    return lines


# --- its three forms: names of the classes, and points and class of the clouds ------------------

Clouds = tuple[list[str], dict[str, Tensor]]


def _read_hdf5(folder: Path, split: str, num_points: int | None, normals: bool | None) -> Clouds:
    classes = read_lines(folder / "shape_names.txt")
    _check_classes(classes, folder / "shape_names.txt")
    # The lists hold paths of the machine they were written on: only the names count.
    files = [folder / Path(line).name for line in read_lines(folder / f"{split}_files.txt")]
    parts = [read_h5(file, len(classes), normal=normals is not False) for file in files]
    without = [file for file, part in zip(files, parts, strict=True) if "normal" not in part]
    if without and (normals or (normals is None and len(without) < len(files))):
        raise ValueError(
            f"{without[0]} holds no array 'normal', which {len(files) - len(without)} of the "
            f"{len(files)} files for {split} have and all genuine ones: fetch them again, or do "
            "without normals"
        )
    arrays = {
        key: np.concatenate(
            [part[key] if key == "y" else part[key][:, :num_points] for part in parts]
        )
        for key in parts[0]
    }
    return classes, {key: torch.from_numpy(array) for key, array in arrays.items()}


def _list_resampled(folder: Path, split: str) -> tuple[list[str], list[Path], list[int]]:
    """Names of the classes; the files of a split; the class of each."""
    classes = read_lines(folder / NAMES)
    listing = folder / f"modelnet40_{split}.txt"
    shapes = read_lines(listing)
    if len(set(shapes)) != len(shapes):
        raise ValueError(f"{listing} names a shape twice")
    number = {name: i for i, name in enumerate(classes)}
    names = [shape.rpartition("_")[0] for shape in shapes]  # night_stand_0001 is a night_stand
    for name, shape in zip(names, shapes, strict=True):
        if name not in number:
            raise ValueError(f"{listing} names {shape!r}, which is of no class in {NAMES}")
    files = [folder / name / f"{shape}.txt" for name, shape in zip(names, shapes, strict=True)]
    if missing := next((file for file in files if not file.is_file()), None):
        raise FileNotFoundError(f"{missing} is missing: {listing.name} names it")
    return classes, files, [number[name] for name in names]


def _read_resampled(folder: Path, split: str, num_points: int | None) -> Clouds:
    classes, files, y = _list_resampled(folder, split)
    _check_classes(classes, folder / NAMES)

    def make() -> dict[str, Tensor]:
        from tqdm import tqdm

        values = np.empty((len(files), POINTS, 6), dtype=np.float32)
        title = f"reading ModelNet40's text files ({split}, once)"
        for i, file in enumerate(tqdm(files, desc=title, disable=None)):
            values[i] = _read_text(file)
        for cloud in values[..., :3]:  # in place: all clouds take gigabytes
            cloud -= cloud.mean(axis=0, dtype=np.float64)
            cloud /= max(float(np.linalg.norm(cloud, axis=1).max()), 1e-12)
        pos, normal = (torch.from_numpy(values[..., part].copy()) for part in np.s_[:3, 3:])
        return {"pos": pos, "normal": normal, "y": torch.tensor(y)}

    key = fingerprint([folder / NAMES, *files], "resampled", 1, y)
    return classes, cached(folder / f"{split}.safetensors", key, make, first=num_points)


def _read_text(path: Path) -> np.ndarray:
    try:
        if not path.read_bytes().strip():
            raise ValueError("it is empty")
        values = np.loadtxt(path, dtype=np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or is no list of numbers: {error}") from error
    if values.shape != (POINTS, 6):
        raise ValueError(
            f"{path} holds {len(values):,} lines of {values.shape[1]} numbers, expected "
            f"{POINTS:,} of 6 (x, y, z and a normal)"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has NaN or infinite numbers")
    return values


def _sample_meshes(folder: Path, split: str, num_points: int, seed: int) -> Clouds:
    """Clouds drawn evenly from the meshes, turned so that the second axis points up, not the third.

    What is drawn from a mesh depends on the seed and its name alone.
    """
    classes = sorted(path.name for path in folder.iterdir() if (path / "train").is_dir())
    found = [sorted((folder / name / split).glob("*.off")) for name in classes]
    files = [file for meshes in found for file in meshes]
    y = [number for number, meshes in enumerate(found) for _ in meshes]
    if not files:
        raise FileNotFoundError(f"no mesh in {folder}: expected CLASS/{split}/*.off there")
    _check_classes(classes, folder)

    def make() -> dict[str, Tensor]:
        from tqdm import tqdm

        pos, normal = (torch.empty(len(files), num_points, 3) for _ in range(2))
        title = f"sampling ModelNet40's meshes ({split}, once)"
        for i, file in enumerate(tqdm(files, desc=title, disable=None)):
            pos[i], normal[i] = _sample_mesh(file, num_points, seed)
        return {"pos": pos, "normal": normal, "y": torch.tensor(y)}

    key = fingerprint(files, "meshes", 2, num_points, seed, y)
    return classes, cached(folder / f"{split}_{num_points}_{seed}.safetensors", key, make)


def read_mesh(path: Path) -> Data:
    """Vertices and triangles of an OFF file: ``Data(pos [v, 3], face [3, f])``.

    Polygons of more corners are cut into triangles.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged, ends early, has no triangles or is no OFF file.
    """
    data = path.read_bytes()
    with whole(path):
        mesh = read_off(data)
        face, _ = triangulate(mesh["pos"], mesh.get("polygons", []))
        if not len(face):
            raise ValueError("it has no triangles")
    with np.errstate(over="ignore"):
        pos = mesh["pos"].astype(np.float32)
    return Data(pos=torch.from_numpy(pos), face=torch.from_numpy(face.T.copy()))


def _sample_mesh(path: Path, num_points: int, seed: int) -> tuple[Tensor, Tensor]:
    mesh = read_mesh(path)
    corners = mesh.pos.double()[mesh.face]
    area = (corners[1] - corners[0]).cross(corners[2] - corners[0], dim=1).norm(dim=1).sum()
    if not (torch.isfinite(mesh.pos).all() and area > 0):
        raise ValueError(f"{path}: its surface is empty, or a vertex is NaN or infinite")
    words = f"{seed}:{path.parent.parent.name}/{path.parent.name}/{path.name}"
    key = int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key)
        cloud = SamplePoints(num_points, include_normals=True)(mesh)
    pos = cloud.pos - cloud.pos.mean(dim=0)
    pos = pos / pos.norm(dim=1).max().clamp(min=1e-12)
    return _turn(pos), _turn(cloud.normal)


def _turn(values: Tensor) -> Tensor:
    """A quarter about the first axis: (x, y, z) to (x, z, -y)."""
    return torch.stack([values[:, 0], values[:, 2], -values[:, 1]], dim=1)


def _check_classes(classes: list[str], where: Path) -> None:
    if len(set(classes)) != 40:
        raise ValueError(f"{where} names {len(set(classes))} classes, expected 40")
