"""HomeObjects: the real 3D objects that ship with this project."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from pointcluster.datasets.cloud_dataset import LabelledClouds
from pointcluster.files import bundled_folder, check_bundled

FILE = "home_objects.npz"
SHA256 = "daabff0dd93d293091cdfeac504b6b2e364b1fe1d7e5864a7241d38eedda4297"

_FORM = {  # array: kinds of its dtype, its shape after the number of clouds
    "pos": ("i", (2048, 3)),
    "normal": ("i", (2048, 3)),
    "y": ("iu", ()),
    "test": ("b", ()),
    "group": ("iu", ()),
    "model": ("U", ()),
    "name": ("U", ()),
}


class HomeObjects(LabelledClouds):
    r"""CAD models of furniture, people, plants, vehicles and vessels, sampled evenly by area.

    The models are those of Sweet Home 3D's furniture libraries (CC BY 3.0 and CC0);
    ``datasets/home_objects/README.md`` tells how they were labelled, compared and split, and
    ``attribution.csv`` beside it names their authors. Near-identical models are on one side of the
    split. The test set is small: one cloud is about one per cent of it.

    Args:
        split: ``"train"``, ``"test"`` or ``"all"``.
        root: A folder with ``home_objects.npz``; by default the one that came with the package.
        transform: Applied to every item when it is read.
        pre_transform: Applied to every item once, here, in memory.

    Shapes and units:
        Items are ``Data(pos [2048, 3] float32, normal [2048, 3] float32, y [1] int64, name str,
        group [1] int64)``. Clouds lie in the unit sphere around their mean and the second axis
        points up, as in :class:`ModelNet40`; most models face the third axis. Normals have length
        1; their sign is the mesh's, which is not always outward. Points are in random order: the
        first n are a sample too.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged, is not the bundled one, or ``split`` is unknown.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        root: str | os.PathLike[str] | None = None,
        transform: Callable[[Data], Data] | None = None,
        pre_transform: Callable[[Data], Data] | None = None,
    ) -> None:
        if split not in ("train", "test", "all"):
            raise ValueError(f"split is {split!r}, expected 'train', 'test' or 'all'")
        super().__init__(None, transform, pre_transform)
        self.split = split
        path = Path(root) / FILE if root is not None else bundled_file()
        arrays = _read(path, None if root is not None else SHA256)
        self.classes = [str(name) for name in arrays["classes"]]
        test = arrays["test"]
        rows = np.flatnonzero({"train": ~test, "test": test, "all": test | ~test}[split])
        pos = torch.from_numpy(arrays["pos"][rows]).float() * float(arrays["step"])
        normal = torch.from_numpy(arrays["normal"][rows]).float()
        normal = torch.nn.functional.normalize(normal, dim=2)
        y, group = (torch.from_numpy(arrays[key][rows].astype(np.int64)) for key in ("y", "group"))
        items = [
            Data(pos=pos[i], normal=normal[i], y=y[[i]], group=group[[i]], name=str(model))
            for i, model in enumerate(arrays["model"][rows])
        ]
        if pre_transform is not None:
            items = [pre_transform(item) for item in items]
        self._data, self.slices = self.collate(items)


def bundled_file() -> Path:
    """Find the file that came with the package: in its checkout, or where a wheel put it.

    Raises:
        FileNotFoundError: It is in none of these places.
    """
    return bundled_folder("home_objects", FILE) / FILE


def _read(path: Path, digest: str | None) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: root must be a folder with {FILE}, or None for the bundled one"
        )
    data = path.read_bytes()
    if digest is not None:
        check_bundled(path, data, digest)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # whatever zipfile, zlib and numpy make of a damaged file
        raise ValueError(f"{path} is truncated or is no npz file: {error}") from error
    missing = {*_FORM, "classes", "step"} - set(arrays)
    if missing:
        raise ValueError(f"{path} lacks the arrays {sorted(missing)}; it has {sorted(arrays)}")
    count = arrays["y"].size
    for key, (kinds, shape) in _FORM.items():
        array = arrays[key]
        if array.dtype.kind not in kinds or array.shape != (count, *shape):
            raise ValueError(
                f"{path}: {key!r} is {array.dtype} {list(array.shape)}, expected a dtype of kind "
                f"{' or '.join(kinds)} and the shape {[count, *shape]}"
            )
    classes, step, y = arrays["classes"], arrays["step"], arrays["y"]
    if classes.ndim != 1 or classes.dtype.kind != "U" or len(set(classes.tolist())) != classes.size:
        raise ValueError(f"{path}: 'classes' must be a list of different names, is {classes!r}")
    if count == 0 or not 0 <= y.min() <= y.max() < len(classes):
        raise ValueError(
            f"{path}: class indices must be in 0 to {len(classes) - 1} and there must be a cloud; "
            f"{count} clouds have {sorted(set(y.tolist()))}"
        )
    if step.shape != () or step.dtype.kind != "f" or not 0 < step < 1:
        raise ValueError(f"{path}: 'step' must be one number between 0 and 1, is {step!r}")
    radius = np.linalg.norm(arrays["pos"] * float(step), axis=2).max()
    if radius > 1 + 2 * step:
        raise ValueError(f"{path}: a point is {radius:.3f} from the origin, expected at most 1")
    if not arrays["normal"].any(axis=2).all():
        raise ValueError(f"{path}: a normal is zero")
    return arrays
