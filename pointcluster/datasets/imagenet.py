"""ImageNet as its challenge of 2012 has it, in one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pointcluster.datasets.folders import class_folders, files_of, subfolders
from pointcluster.datasets.image_folder import SUFFIXES, ImageFolder

SIZES = {"train": 1_281_167, "val": 50_000}
NUM_CLASSES = 1000
# Images that a class may have: the fewest and the most.
_RANGE = {"train": (732, 1300), "val": (50, 50)}


class ImageNet(ImageFolder):
    """The 1,000-class benchmark of `"ImageNet Large Scale Visual Recognition Challenge"
    <https://arxiv.org/abs/1409.0575>`_, from ``root/train/<wnid>/*.JPEG`` and ``root/val``.

    ``datasets/imagenet/README.md`` tells how to get it into this form. Items and what becomes of
    unreadable files are as in :class:`ImageFolder`.

    Args:
        root: The folder that holds ``train`` and ``val``.
        split: ``"train"`` (1,281,167 images) or ``"val"`` (50,000).
        transform: Applied to every picture when it is read.
        on_error: ``"raise"``, ``"skip"`` or ``"drop"``; see :class:`ImageFolder`.
        sizes: Images that the splits must have, of 1,000 classes; ``None`` takes a part of ImageNet
            as it is.

    Raises:
        FileNotFoundError: The folder of the split is missing.
        ValueError: It is no folder of classes, or lacks images.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        *,
        on_error: str = "raise",
        sizes: Mapping[str, int] | None = SIZES,
    ) -> None:
        if split not in SIZES:
            raise ValueError(f"split is {split!r}, expected 'train' or 'val'")
        root = Path(root).expanduser()
        if not (root / split).is_dir():
            raise FileNotFoundError(
                f"no folder {root / split}: root must hold train/ and val/ "
                "(datasets/imagenet/README.md tells how to get them)"
            )
        self.split = split
        # A part of val may lack a class: its indices are those of train all the same.
        both = split == "val" and (root / "train").is_dir()
        classes = class_folders(root / "train", SUFFIXES, ".jpeg") if both else None
        super().__init__(root / split, transform, classes=classes, on_error=on_error)
        if sizes is not None and (len(self.classes), len(self)) != (NUM_CLASSES, sizes[split]):
            raise ValueError(
                f"{self.root} has {len(self):,} images in {len(self.classes):,} classes, expected "
                f"{sizes[split]:,} in 1,000: `python datasets/imagenet/prepare.py check {root}` "
                "says which folders are short; sizes=None takes a part of ImageNet as it is"
            )


def count_images(root: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Count the images of each class: ``{"train": {wnid: number}, "val": ...}``.

    A split without a folder has no classes. Names that begin with a dot are passed over.
    """
    counts = {}
    for split in SIZES:
        folder = Path(root) / split
        names = subfolders(folder)
        counts[split] = {name: len(files_of(folder / name, SUFFIXES)) for name in names}
    return counts


def missing_images(
    counts: Mapping[str, Mapping[str, int]],
    expected: Mapping[str, Mapping[str, int]] | None = None,
) -> list[str]:
    """Say what differs from the whole of ImageNet: a line a split, and one for each folder.

    Args:
        counts: From :func:`count_images`; the splits that it has are looked at.
        expected: What each class should have, as the devkit says. Without it a class is known to be
            short when it is out of the range of all classes (732 to 1,300 in ``train``, 50 in
            ``val``) or is missing while the other split has it.
    """
    lines = []
    everywhere = sorted({name for split in counts.values() for name in split})
    for split, found in counts.items():
        wanted = dict.fromkeys(everywhere, _RANGE[split])
        if expected is not None:
            wanted = {name: (count, count) for name, count in expected[split].items()}
        details = []
        for name in sorted({*wanted, *found}) if found else ():
            if name not in wanted:
                details.append(f"  {split}/{name}: no class of ImageNet")
                continue
            low, high = wanted[name]
            if name not in found:
                details.append(f"  {split}/{name}: missing")
            elif not low <= found[name] <= high:
                numbers = f"{low:,}" if low == high else f"{low:,} to {high:,}"
                details.append(f"  {split}/{name}: {found[name]:,} images, expected {numbers}")
        size = sum(found.values())
        if details or (size, len(found)) != (SIZES[split], NUM_CLASSES):
            lines.append(
                f"{split}: {size:,} of {SIZES[split]:,} images in {len(found):,} of "
                f"{NUM_CLASSES:,} classes"
            )
            lines += details
    return lines
