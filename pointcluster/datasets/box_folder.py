"""Pictures with boxes around what is in them, from VOC's XML or COCO's JSON."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from pointcluster._optional import installed_by
from pointcluster.datasets.folders import files_of
from pointcluster.datasets.mask_folder import pictures_in, read_picture

Box = tuple[str, list[float]]


class BoxFolder(Dataset):
    """Pictures with boxes, as torchvision's detectors and transforms (v2) take them.

    Items are `(image, target)`: torchvision's `Image`, uint8 $(3, H, W)$, and a dictionary of
    `boxes`, `BoundingBoxes` (x1, y1, x2, y2) in pixels, and `labels`, int64, from 1 on; 0 is the
    background. Boxes are cut off where the picture ends; what has no width or height then and
    COCO's crowds are left out.

    Args:
        images: The folder of pictures.
        boxes: A folder with a file of VOC's form a picture, `.xml`, of equal names; or one file of
            COCO's form, `.json`.
        transform: Applied to every picture with its target.
        classes: Names of the classes, the first one's label being 1; those of the boxes, sorted, if
            not said. Give a test set those of its training set.
        names: Which pictures, without their endings; all that have a file of boxes, if not said.

    Attributes:
        files: The pictures.
        classes: Names of the classes.

    Raises:
        FileNotFoundError: A folder or file is not there.
        ValueError: A file is damaged, a picture or class is missing, there are none, or two
            pictures have one name.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        boxes: str | os.PathLike[str],
        transform: Callable[..., Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.transform = transform
        there = pictures_in(images)
        source = Path(boxes).expanduser()
        found = _coco(source) if source.suffix == ".json" else _voc(source, names)
        if names is not None:
            if unknown := [name for name in names if name not in found]:
                raise ValueError(f"{boxes} tells nothing of {unknown[0]}")
            found = {name: found[name] for name in names}
        if lacking := [name for name in found if name not in there]:
            raise ValueError(f"{lacking[0]} has boxes in {boxes} and no picture in {images}")
        if not found:
            raise ValueError(f"{boxes} tells of no pictures")
        kinds = {kind for inside in found.values() for kind, _ in inside}
        if classes is None and not kinds:
            raise ValueError(f"{boxes} has no box: say which classes there are")
        self.classes = sorted(kinds) if classes is None else list(classes)
        if unknown := sorted(kinds.difference(self.classes)):
            raise ValueError(f"{boxes} has boxes of {unknown[0]!r}, expected {self.classes}")
        label = {kind: 1 + i for i, kind in enumerate(self.classes)}
        self.files = [there[name] for name in found]
        self._boxes = [[box for _, box in inside] for inside in found.values()]
        self._labels = [[label[kind] for kind, _ in inside] for inside in found.values()]

    @classmethod
    def split(cls, root: str | os.PathLike[str], split: str, **options: Any) -> BoxFolder:
        """A split: `split/images` with `split/boxes` or `split/boxes.json`, or VOC's own layout
        (`JPEGImages`, `Annotations`, `ImageSets/Main/split.txt`).

        Args:
            root: The folder that holds them.
            split: `"train"`, `"test"` or another name.
            options: Further arguments of the class.

        Raises:
            FileNotFoundError: There is no such split.
        """
        root = Path(root).expanduser()
        for boxes in (root / split / "boxes", root / split / "boxes.json"):
            if boxes.exists():
                return cls(root / split / "images", boxes, **options)
        listed = root / "ImageSets" / "Main" / f"{split}.txt"
        if not listed.is_file():
            raise FileNotFoundError(
                f"{root} has no split {split!r}: looked for {split}/boxes, {split}/boxes.json and "
                f"ImageSets/Main/{split}.txt"
            )
        names = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
        return cls(root / "JPEGImages", root / "Annotations", names=names, **options)

    @staticmethod
    def collate(items: Sequence[Any]) -> tuple[Any, ...]:
        """The pictures of a batch and their targets, as detectors take them: not stacked.

        For a `DataLoader`, as `collate_fn=BoxFolder.collate`.
        """
        return tuple(zip(*items, strict=True))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        with installed_by("image"):
            from torchvision import tv_tensors

        image = read_picture(self.files[index])
        height, width = image.shape[1:]
        boxes = torch.tensor(self._boxes[index], dtype=torch.float32).view(-1, 4)
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        there = (boxes[:, :2] < boxes[:, 2:]).all(1)
        target = {
            "boxes": tv_tensors.BoundingBoxes(
                boxes[there], format="XYXY", canvas_size=(height, width)
            ),
            "labels": torch.tensor(self._labels[index], dtype=torch.int64)[there],
        }
        item = image, target
        return item if self.transform is None else self.transform(*item)


def _voc(folder: Path, names: Sequence[str] | None) -> dict[str, list[Box]]:
    """Kinds and boxes by the pictures' names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder, nor a file of COCO's form (.json)")
    there = [folder / name for name in files_of(folder, (".xml",))]
    files = there if names is None else [folder / f"{name}.xml" for name in dict.fromkeys(names)]
    found: dict[str, list[Box]] = {}
    for file in files:
        inside = found.setdefault(file.stem, [])
        try:
            for thing in ElementTree.parse(file).getroot().iter("object"):
                sides = [
                    thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
                ]
                kind = thing.findtext("name")
                if kind is None or None in sides:
                    raise ValueError("an object lacks its name or its box")
                box = [float(side or "") for side in sides]
                if box[0] < box[2] and box[1] < box[3]:
                    inside.append((kind, box))
        except (ElementTree.ParseError, ValueError) as error:
            raise ValueError(f"{file} is no file of VOC's form: {error}") from error
    return found


def _coco(file: Path) -> dict[str, list[Box]]:
    """Kinds and boxes by the pictures' names."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        pictures = {each["id"]: Path(each["file_name"]).stem for each in content["images"]}
        kinds = {each["id"]: str(each["name"]) for each in content["categories"]}
        found: dict[str, list[Box]] = {name: [] for name in pictures.values()}
        for each in content["annotations"]:
            left, top, width, height = map(float, each["bbox"])
            if width > 0 and height > 0 and not each.get("iscrowd"):
                box = [left, top, left + width, top + height]
                found[pictures[each["image_id"]]].append((kinds[each["category_id"]], box))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no file of COCO's form: {error!r}") from error
    if len(found) < len(pictures):
        raise ValueError(f"{file} names two pictures alike but for their folders and endings")
    return found
