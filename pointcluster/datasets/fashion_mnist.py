"""Fashion-MNIST: small pictures of clothes, of which a part ships with this project."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pointcluster._optional import needed_for
from pointcluster.files import bundled_folder, check_bundled

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Of the files that ship with the project; datasets/fashion_mnist/prepare.py prints them.
SHA256 = {
    "train-images-idx3-ubyte": "b240910d2f9a3dad10993db98ccd0cce3dd9149f4e70b24a0b03b57d41908dae",
    "train-labels-idx1-ubyte": "ae0d767c2f6dbbdea3abe9cbf56dacf5c2069a5513b4a9e0ff10b1923bc33661",
    "t10k-images-idx3-ubyte": "e60ede7714c657ced2d723c33140572b5476b46df34b385a6e176b0757dc4318",
    "t10k-labels-idx1-ubyte": "e6d25f5f3e85bb315a10172898c1c8f69ce52c4f9306c5821205c821bfca8847",
}


class FashionMNIST(Dataset):
    """Clothes in 10 classes, from `"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms" <https://arxiv.org/abs/1708.07747>`_ (MIT licence).

    Without ``root`` it is the part that ships with this project: of each class the first 500
    training and the first 200 test images. The whole has 60,000 and 10,000;
    ``datasets/fashion_mnist/README.md`` tells how to get it.

    Args:
        root: A folder with the four files of the data set, ``train-images-idx3-ubyte`` and so on,
            with ``.gz`` or unpacked, or one that holds them in ``FashionMNIST/raw``, where
            torchvision puts them.
        split: ``"train"`` or ``"test"``.
        transform: Applied to every picture when it is read.

    Attributes:
        classes: Names of the classes.
        images: All pictures, uint8 ``[n, 28, 28]``.
        targets: Class index of each, int64 ``[n]``.

    Shapes and units:
        Items are ``(image, class index)``, the image a grey picture of PIL's (mode ``L``), 28 x 28,
        white on black.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, the two do not fit together, they are not the bundled ones,
            or ``split`` is unknown.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        if split not in _FILES:
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        self.split, self.transform = split, transform
        self.classes = list(CLASSES)
        names = _FILES[split]
        if root is None:
            folder = bundled_folder("fashion_mnist", names[0] + ".gz")
            paths = [folder / f"{name}.gz" for name in names]
        else:
            paths = [_find(Path(root).expanduser(), name) for name in names]
        images, labels = (read_idx(path, SHA256 if root is None else None) for path in paths)
        if images.shape[1:] != (28, 28) or not len(images):
            raise ValueError(
                f"{paths[0]} holds an array {list(images.shape)}, expected [n, 28, 28]"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"{paths[1]} holds an array {list(labels.shape)}, expected one label for each of "
                f"the {len(images)} images of {paths[0].name}"
            )
        if labels.max() >= len(CLASSES):
            raise ValueError(f"{paths[1]} has the class {labels.max()}, expected 0 to 9")
        self.images = torch.from_numpy(images)
        self.targets = torch.from_numpy(labels).long()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with needed_for("a picture", "Pillow", "pillow"):
            from PIL import Image

        image: Any = Image.fromarray(self.images[index].numpy())
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self.targets[index])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"FashionMNIST({len(self)}, split={self.split!r})"


def read_idx(path: Path, digests: dict[str, str] | None = None) -> np.ndarray:
    """Read an array of bytes in the form of MNIST's files, packed with gzip or not.

    Args:
        path: The file.
        digests: SHA-256 that the file must have, by its name without ``.gz``.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged or no such file, or has another SHA-256.
    """
    data = path.read_bytes()
    if digests is not None:
        check_bundled(path, data, digests[path.stem])
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is truncated or no gzip file: {error}") from error
    # Two zeros, 8 for bytes, the number of dimensions; then each dimension, big end first.
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} does not begin as a file of bytes in idx form does")
    dim = data[3]
    shape = np.frombuffer(data, ">u4", count=dim, offset=4).astype(np.int64).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dim)
    if not dim or values.size != np.prod(shape, dtype=object):
        raise ValueError(f"{path} announces an array {shape} and holds {values.size:,} values")
    return values.reshape(shape).copy()


def _find(root: Path, name: str) -> Path:
    folders = (root, root / "FashionMNIST" / "raw")
    for folder in folders:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"no {name}.gz or {name} in {folders[0]} or {folders[1]}: root must hold the four files of "
        "Fashion-MNIST (datasets/fashion_mnist/README.md tells how to get them), or be None for "
        "the bundled part"
    )
