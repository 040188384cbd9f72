"""Pictures and, in a second folder, masks that say the class of every pixel."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pointcluster._optional import installed_by
from pointcluster.datasets.folders import files_of
from pointcluster.datasets.image_folder import SUFFIXES
from pointcluster.datasets.readers.image import read_image

LAYOUTS = (
    ("{split}/images", "{split}/masks"),
    ("images/{split}", "masks/{split}"),
    ("{split}", "{split}annot"),  # CamVid's
)
"""Where pictures and masks of a split are looked for."""


class MaskFolder(Dataset):
    """Pictures and masks in two folders, of equal names but for their endings.

    Items are `(image, mask)`, torchvision's `Image`, uint8 $(3, H, W)$, and `Mask`, int64
    $(H, W)$, so that its transforms (v2) change both alike. A mask is a picture of indices, grey or
    with a palette: its numbers are the classes.

    Args:
        images: The folder of pictures.
        masks: The folder of masks, `.png` or another lossless format.
        transform: Applied to every picture with its mask.
        num_classes: Number of classes; one more than the largest in the masks, if not said.
        ignore_index: What masks hold where no class is known.

    Attributes:
        files: The pictures, and their masks.
        num_classes: Number of classes.

    Raises:
        FileNotFoundError: A folder is not there.
        ValueError: There are no pictures, one has no mask, or two have one name; when they are
            read, a mask is no picture of indices, of another size than its picture, or holds a
            class that is none.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        transform: Callable[..., Any] | None = None,
        *,
        num_classes: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.transform, self.ignore_index = transform, ignore_index
        there, found = pictures_in(masks), list(pictures_in(images).values())
        if not found:
            raise ValueError(f"{images} holds no pictures")
        if lacking := [file.name for file in found if file.stem not in there]:
            raise ValueError(
                f"{len(lacking)} of {len(found)} pictures in {images} have no mask in {masks}, "
                f"first {lacking[0]}"
            )
        self.files = [(file, there[file.stem]) for file in found]
        self.num_classes = num_classes or 1 + max(self._largest(mask) for _, mask in self.files)

    @classmethod
    def split(cls, root: str | os.PathLike[str], split: str, **options: Any) -> MaskFolder:
        """A split, from `split/images` and `split/masks`, `images/split` and `masks/split`, or
        `split` and `splitannot`.

        Args:
            root: The folder that holds them.
            split: `"train"`, `"test"` or another name.
            options: Further arguments of the class.

        Raises:
            FileNotFoundError: There is no such split.
        """
        for layout in LAYOUTS:
            images, masks = (Path(root).expanduser() / part.format(split=split) for part in layout)
            if images.is_dir() and masks.is_dir():
                return cls(images, masks, **options)
        known = "; ".join(" and ".join(layout) for layout in LAYOUTS).format(split=split)
        raise FileNotFoundError(f"{root} has no split {split!r}: looked for {known}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with installed_by("image"):
            from torchvision import tv_tensors

        picture, mask = self.files[index]
        image = read_picture(picture)  # [3, H, W]
        values = torch.from_numpy(read_mask(mask))  # [H, W]
        if values.shape != image.shape[1:]:
            raise ValueError(
                f"{mask} has {list(values.shape)} pixels, {picture} {list(image.shape[1:])}"
            )
        unknown = (values < 0) | (values >= self.num_classes)
        wrong = values[unknown & (values != self.ignore_index)]
        if len(wrong):
            raise ValueError(
                f"{mask} holds {int(wrong[0])}, expected 0 to {self.num_classes - 1} or "
                f"{self.ignore_index} for what is ignored"
            )
        item = image, tv_tensors.Mask(values)
        return item if self.transform is None else self.transform(*item)

    def _largest(self, mask: Path) -> int:
        values = np.unique(read_mask(mask))
        return int(max(values[values != self.ignore_index], default=0))


def read_picture(path: str | os.PathLike[str]) -> Any:
    """A picture's colours as torchvision's `Image`, uint8 $(3, H, W)$, for its transforms (v2).

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no picture, or a damaged one.
    """
    with installed_by("image"):
        from torchvision import tv_tensors

    return tv_tensors.Image(torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1))


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """The indices that a mask holds, int64 [H, W].

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no picture of indices, or a damaged one.
    """
    with installed_by("image"):
        from PIL import Image, UnidentifiedImageError

    data = Path(path).read_bytes()  # what fails after this is the file's content, not the disk
    try:
        with Image.open(BytesIO(data)) as mask:
            mode, values = mask.mode, np.array(mask)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no picture") from None
    except Exception as error:  # whatever the decoders make of a damaged file
        raise ValueError(f"{path} is damaged or ends early: {error}") from error
    if mode not in ("P", "L", "1", "I", "I;16"):
        raise ValueError(
            f"{path} is a picture of colours ({mode}), expected indices, grey or with a palette: "
            "each pixel's number is its class"
        )
    return values.astype(np.int64)


def pictures_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The pictures in a folder by their names without endings, sorted; hidden ones left out.

    Raises:
        FileNotFoundError: It is no folder.
        ValueError: Two have one name.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    found: dict[str, Path] = {}
    for file in (folder / name for name in files_of(folder, SUFFIXES)):
        if (other := found.setdefault(file.stem, file)) != file:
            raise ValueError(f"{folder} holds {other.name} and {file.name}: which is it?")
    return found
