"""ModelNet40 in the three forms that the point-cloud literature uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pointcluster.datasets import modelnet40_meshes as meshes
from pointcluster.datasets import modelnet40_resampled as resampled
from pointcluster.datasets.cloud_dataset import CloudDataset, check_size
from pointcluster.datasets.modelnet40_archive import (
    FORMS,
    fetch_modelnet40,
    find_archive,
    find_modelnet40,
)
from pointcluster.datasets.modelnet40_resampled import read_lines
from pointcluster.datasets.readers.h5 import read_h5


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
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        if form not in FORMS:
            raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
        if sizes is not None and not isinstance(sizes, tuple) and sizes != "published":
            raise ValueError(f"sizes is {sizes!r}, expected 'published', two numbers or None")
        most = {"hdf5": 2048, "resampled": resampled.POINTS}.get(form)
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
        super().__init__(None, transform)
        folder = fetch_modelnet40(root) if download else find_modelnet40(root, form)
        if folder is None:
            raise FileNotFoundError(_not_there(Path(root), form))
        self.split, self.form, self.seed = split, form, (seed or 0) if form == "meshes" else None
        if form == "hdf5":
            self.classes, y, points = _read_hdf5(folder, split, num_points, normals)
        else:
            if form == "resampled":
                self.classes = resampled.list_resampled(folder, split)[0]
                _check_classes(self.classes, folder / resampled.NAMES)
                tensors = resampled.read_resampled(folder, split, num_points)
            else:
                self.classes = meshes.list_meshes(folder, split)[0]
                _check_classes(self.classes, folder)
                tensors = meshes.sample_meshes(folder, split, num_points or 2048, seed or 0)
            y, points = tensors.pop("y"), tensors
            if normals is False:
                del points["normal"]
        expected = FORMS[form][3] if sizes == "published" else sizes
        if isinstance(expected, tuple):
            number = expected[split == "test"]
            check_size(str(folder), split, len(y), number, number)
        self.keep(y, **points)

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


def _check_classes(classes: list[str], where: Path) -> None:
    if len(set(classes)) != 40:
        raise ValueError(f"{where} names {len(set(classes))} classes, expected 40")


def _read_hdf5(
    folder: Path, split: str, num_points: int | None, normals: bool | None
) -> tuple[list[str], torch.Tensor, dict[str, torch.Tensor]]:
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
    keys = ("pos",) if without or normals is False else ("pos", "normal")
    points = {key: np.concatenate([part[key][:, :num_points] for part in parts]) for key in keys}
    y = np.concatenate([part["y"] for part in parts])
    return classes, torch.from_numpy(y), {k: torch.from_numpy(a) for k, a in points.items()}
