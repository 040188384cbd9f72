"""Images in one folder a class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pointcluster.datasets.folders import (
    class_folders,
    files_below,
    files_of,
    first_readable,
    folders_of,
    listed,
)
from pointcluster.datasets.readers.image import read_image

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm",
)  # fmt: skip


class ImageFolder(Dataset):
    """Labelled images, ``root/<class>/*.jpeg`` or another common suffix in upper or lower case.

    Items are ``(image, class index)``, the image an RGB picture of PIL's, so that torchvision's and
    timm's transforms apply; see :func:`read_image` for what becomes of grey, CMYK, 16-bit,
    transparent and turned ones. Names that begin with a dot are passed over. Images are opened when
    they are asked for, not before. Images in other places are not read, and a ``UserWarning`` says
    how many there are and where: deeper in a class's folder, in the root itself, behind links that
    lead nowhere.

    Args:
        root: The folder with one folder a class.
        transform: Applied to every picture when it is read.
        classes: Names of the class folders, in the order of their indices; by default all that
            there are, sorted. Give a test set the classes of its training set: a class may lack
            images then, and a folder of another name is an error.
        on_error: What happens to a file that holds no readable image. ``"raise"``: a ValueError
            that names it. ``"skip"``: in its place comes the next readable image in the order of
            the list, with that one's class, the same each time; the length stays. ``"drop"``: the
            item is ``None``, for a loader's ``collate_fn`` to leave out, so that a test counts no
            image twice. Each process warns once about each such file. What the system refuses, such
            as a missing file, is an OSError either way.

    Attributes:
        classes: Names of the classes.
        class_to_idx: Index of each class.
        targets: Class index of each image, int64 ``[n]``.

    Raises:
        FileNotFoundError: ``root`` is no folder.
        ValueError: It has no class folders, no images, a class without images, or a class folder
            that is not among ``classes``; when an image is read, as ``on_error`` says.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[Any], Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        on_error: str = "raise",
    ) -> None:
        if on_error not in ("raise", "skip", "drop"):
            raise ValueError(f"on_error is {on_error!r}, expected 'raise', 'skip' or 'drop'")
        self.root = Path(root).expanduser()
        self.transform, self.on_error = transform, on_error
        found = class_folders(self.root, SUFFIXES, ".jpeg")
        self.classes = found if classes is None else list(classes)
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        if len(self.class_to_idx) != len(self.classes):
            raise ValueError("classes names a class twice")
        if unknown := [name for name in found if name not in self.class_to_idx]:
            raise ValueError(
                f"{self.root} has {listed(unknown)}, which {'is' if len(unknown) == 1 else 'are'} "
                f"not among the {len(self.classes)} classes expected"
            )
        names = {n: files_of(self.root / n, SUFFIXES) for n in self.classes if n in found}
        lacking = [name for name in names if not names[name]]
        if len(lacking) == len(names):
            raise ValueError(
                f"no images in the class folders of {self.root} ({listed(lacking)}): expected "
                f"files of the form {self.root / lacking[0]}/*.jpeg, or *{', *'.join(SUFFIXES)}"
                + _hint(self.root, lacking)
            )
        if lacking and classes is None:
            raise ValueError(
                f"no images in {listed(lacking)} of {self.root}: remove what is no class, or give "
                "classes"
            )
        used = {f"{name}/{file}" for name, files in names.items() for file in files}
        if others := sorted(n for n in files_below(self.root, SUFFIXES) if n not in used):
            warnings.warn(
                f"{self.root}: {len(others):,} of its images will not be read, those in "
                f"{folders_of(others)}, such as {others[0]}: expected files in the class folders "
                "themselves",
                stacklevel=2,
            )
        # One array of names and no list of objects: a million objects would be copied into every
        # worker process, as each reading of one writes its count of references.
        self._names = np.array([os.fsencode(file) for files in names.values() for file in files])
        self.targets = torch.tensor(
            [self.class_to_idx[name] for name, files in names.items() for _ in files]
        )
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Any, int] | None:
        index = range(len(self))[index]
        steps = 1 if self.on_error == "drop" else len(self)
        read = first_readable(
            ((index + step) % len(self) for step in range(steps)),
            lambda place: read_image(self.path(place)),
            self._unreadable,
            skip=self.on_error != "raise",
        )
        if read is not None:
            place, image = read
            image = image if self.transform is None else self.transform(image)
            return image, int(self.targets[place])
        if self.on_error == "drop":
            return None
        raise ValueError(f"none of the {len(self)} images of {self.root} can be read")

    def path(self, index: int) -> Path:
        """Where an image lies."""
        folder = self.classes[int(self.targets[index])]
        return self.root / folder / os.fsdecode(self._names[index].item())

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def samples(self) -> list[tuple[str, int]]:
        """Path and class index of every image, in torchvision's form."""
        return [(str(self.path(i)), int(label)) for i, label in enumerate(self.targets)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {len(self)} images)"


def _hint(root: Path, folders: Sequence[str]) -> str:
    deeper = [name for name in folders if any(path.is_dir() for path in (root / name).iterdir())]
    return f". Or is the folder that is meant {root / deeper[0]}?" if deeper else ""
