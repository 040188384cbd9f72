"""Folders of one's own, one for each class, as the two parts of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointcluster import datasets

SAMPLED = 2048
"""Points that a scan is reduced to where the network gets fewer: what it may choose from."""


def cloud_folder(
    root: str | Path, num_points: int, columns: str | None = None
) -> tuple[datasets.PointFolder, datasets.PointFolder]:
    """Scans and meshes: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` of which a part is tested.

    Args:
        root: The folder.
        num_points: Points that the network gets.
        columns: What the columns of tables are, as :class:`~pointcluster.datasets.PointFolder`
            takes it.

    Raises:
        ValueError: There is no such folder, or its two parts have other classes, or only one.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"--data: there is no folder {root}")
    points = max(num_points, SAMPLED)
    train, test = (
        datasets.PointFolder(root, split=part, num_points=points, fields=(), columns=columns)
        for part in ("train", "test")
    )
    if len(train.classes) < 2:
        raise ValueError(
            f"--data {root}: there is one class, {train.classes[0]}, expected at least two, each a "
            "folder"
        )
    return train, test


def image_folder(
    root: str | Path, *, train: bool = True, on_error: str = "raise"
) -> tuple[Any, datasets.ImageFolder]:
    """Pictures as ImageNet has them: `train/CLASS/*` and `val/CLASS/*`.

    Args:
        root: The folder.
        train: Whether the training part is read; an empty one is given otherwise.
        on_error: What happens to a picture that cannot be read: `"raise"`, or `"skip"`, which takes
            the next one in training and leaves it out of the test.

    Raises:
        ValueError: A folder is missing, or the two parts have other classes.
    """
    folders = [Path(root).expanduser() / part for part in ("train", "val")]
    for folder in folders if train else folders[1:]:
        if not folder.is_dir():
            raise ValueError(f"--data {root}: there is no folder {folder}")
    test = datasets.ImageFolder(folders[1], on_error="raise" if on_error == "raise" else "drop")
    if not train:
        return (), test
    first = datasets.ImageFolder(folders[0], on_error=on_error)
    if first.classes != test.classes:
        differ = [
            f"{name} is only in {'train' if name in first.classes else 'val'}/"
            for name in sorted({*first.classes} ^ {*test.classes})
        ]
        more = "; ..." if len(differ) > 3 else ""
        raise ValueError(
            f"--data {root}: train/ and val/ have other classes: {'; '.join(differ[:3])}{more}"
        )
    return first, test
