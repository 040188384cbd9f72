from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointcluster.datasets.box_folder import BoxFolder

v2 = pytest.importorskip("torchvision.transforms.v2")
TREES = Path(__file__).parents[2] / "datasets" / "tree_crowns"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def picture(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(folder / f"{name}.jpg")


def voc(file, *things):
    file.parent.mkdir(parents=True, exist_ok=True)
    inside = [f"<object><name>{kind}</name>{BOX.format(*box)}</object>" for kind, box in things]
    file.write_text(f"<annotation>{''.join(inside)}</annotation>")


@pytest.fixture
def folder(tmp_path):
    for name in "ab":
        picture(tmp_path / "train" / "images", name)
    voc(tmp_path / "train/boxes/a.xml", ("cat", (1, 2, 5, 8)), ("ant", (3, 3, 3, 9)))
    voc(tmp_path / "train/boxes/b.xml")
    return tmp_path


def test_voc(folder):
    voc(
        folder / "train/boxes/a.xml",
        ("cat", (1, 2, 5, 8)),
        ("ant", (3, 3, 3, 9)),
        ("ant", (0, 0, 9, 9)),
    )
    data = BoxFolder.split(folder, "train")
    assert len(data) == 2 and data.classes == ["ant", "cat"]
    image, target = data[0]
    assert image.shape == (3, 10, 20) and target["labels"].tolist() == [2, 1]
    assert target["boxes"].tolist() == [[1, 2, 5, 8], [0, 0, 9, 9]]  # without the empty one
    assert data[1][1]["boxes"].shape == (0, 4)
    flipped = BoxFolder.split(folder, "train", transform=v2.RandomHorizontalFlip(1))[0][1]
    assert flipped["boxes"][0].tolist() == [15, 2, 19, 8]


def test_boxes_end_where_the_picture_does(folder):
    voc(
        folder / "train/boxes/a.xml",
        ("cat", (-3, 2, 5, 88)),
        ("dog", (20, 0, 30, 9)),
        ("dog", (2, 3, "inf", 4)),
        ("cat", (2, 3, "nan", 4)),
    )
    _, target = BoxFolder.split(folder, "train")[0]
    assert target["boxes"].tolist() == [[0, 2, 5, 10], [2, 3, 20, 4]]
    assert target["labels"].tolist() == [1, 2]


def test_a_batch_is_not_stacked(folder):
    data = BoxFolder.split(folder, "train")
    images, targets = BoxFolder.collate([data[0], data[1]])
    assert len(images) == len(targets) == 2 and targets[0]["labels"].tolist() == [1]


def test_vocs_own_layout(folder):
    (folder / "train" / "images").rename(folder / "JPEGImages")
    (folder / "train" / "boxes").rename(folder / "Annotations")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "val.txt").write_text("b\na 1\n\n")
    data = BoxFolder.split(folder, "val", classes=["cat", "dog"])
    assert [file.stem for file in data.files] == ["b", "a"] and data[1][1]["labels"].tolist() == [1]
    assert len(BoxFolder(folder / "JPEGImages", folder / "Annotations", names=["a", "a"])) == 1
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        BoxFolder.split(folder, "test")
    with pytest.raises(ValueError, match=r"boxes of 'cat', expected \['dog'\]"):
        BoxFolder.split(folder, "val", classes=["dog"])


def test_coco(folder):
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "x/a.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "bee"}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"image_id": 3, "category_id": 18, "bbox": [1, 2, 0, 4]},
        ],
    }
    file = folder / "test" / "boxes.json"
    (folder / "train").rename(folder / "test")
    for old in (folder / "test" / "boxes").iterdir():
        old.unlink()
    (folder / "test" / "boxes").rmdir()
    file.write_text(json.dumps(content))
    data = BoxFolder.split(folder, "test")
    assert data.classes == ["dog"] and [path.stem for path in data.files] == ["b", "a"]
    assert data[0][1]["boxes"].tolist() == [[1, 2, 4, 6]] and len(data[1][1]["labels"]) == 0
    with pytest.raises(ValueError, match="tells nothing of c"):
        BoxFolder(folder / "test" / "images", file, names=["a", "c"])
    twice = [*content["images"], {"id": 9, "file_name": "y/a.jpg"}]
    file.write_text(json.dumps(content | {"images": twice}))
    with pytest.raises(ValueError, match="names two pictures alike"):
        BoxFolder.split(folder, "test")
    file.write_text(json.dumps(content | {"categories": []}))
    with pytest.raises(ValueError, match=r"boxes\.json is no file of COCO's form: KeyError\(18\)"):
        BoxFolder.split(folder, "test")


def test_what_does_not_fit(folder):
    boxes, images = folder / "train/boxes", folder / "train/images"
    voc(boxes / "c.xml")
    with pytest.raises(ValueError, match="c has boxes in .* and no picture"):
        BoxFolder(images, boxes)
    (boxes / "c.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"c\.xml is no file of VOC's form"):
        BoxFolder(images, boxes)
    (boxes / "c.xml").write_text("<a><object><name>x</name></object></a>")
    with pytest.raises(ValueError, match="lacks its name or its box"):
        BoxFolder(images, boxes)
    with pytest.raises(FileNotFoundError, match="nor a file of COCO's"):
        BoxFolder(images, folder / "none")
    with pytest.raises(FileNotFoundError, match="is not there"):
        BoxFolder(images, folder / "none.json")
    with pytest.raises(ValueError, match="tells of no pictures"):
        BoxFolder(images, images)
    (boxes / "c.xml").unlink()
    voc(boxes / "a.xml")
    with pytest.raises(ValueError, match="has no box: say which classes"):
        BoxFolder(images, boxes)
    assert BoxFolder(images, boxes, classes=["cat"])[0][1]["labels"].shape == (0,)
    Image.new("RGB", (20, 10)).save(images / "a.png")
    with pytest.raises(ValueError, match=r"holds a\.jpg and a\.png"):
        BoxFolder(images, boxes, classes=["cat"])


def test_the_sample_that_ships():
    train, test = (BoxFolder.split(TREES, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (20, 4) and train.classes == test.classes == ["tree"]
    boxes = torch.cat([train[i][1]["boxes"] for i in range(20)])
    assert len(boxes) == 242 and boxes.min() >= 0 and boxes.max() <= 256
    assert sum(len(test[i][1]["boxes"]) for i in range(4)) == 56
