from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointcluster.datasets.mask_folder import MaskFolder, read_mask

v2 = pytest.importorskip("torchvision.transforms.v2")
TREES = Path(__file__).parents[2] / "datasets" / "tree_crowns"


def write(folder, name, mode="L", size=(6, 4), values=(0, 1, 2, 255)):
    images, masks = folder / "images", folder / "masks"
    for part in (images, masks):
        part.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(images / f"{name}.jpg")
    mask = Image.fromarray(np.resize(np.array(values, np.uint8), size[::-1]))
    if mode == "P":
        mask = mask.copy()
        mask.putpalette(list(range(256)) * 3)
    (mask.convert(mode) if mode == "RGB" else mask).save(masks / f"{name}.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_items(tmp_path, mode):
    write(tmp_path / "train", "b", mode)
    write(tmp_path / "train", "a", mode, values=(0, 1))
    data = MaskFolder.split(tmp_path, "train")
    assert len(data) == 2 and data.num_classes == 3
    assert [file.name for file, _ in data.files] == ["a.jpg", "b.jpg"]
    image, mask = data[1]
    assert image.shape == (3, 4, 6) and image.dtype == torch.uint8
    assert mask.dtype == torch.int64 and mask.unique().tolist() == [0, 1, 2, 255]
    flipped = MaskFolder.split(tmp_path, "train", transform=v2.RandomHorizontalFlip(1))
    assert torch.equal(flipped[1][1], mask.flip(1))


def test_layouts_and_the_ignored_index(tmp_path):
    write(tmp_path / "x", "a", values=(0, 1, 11))
    (tmp_path / "x" / "images").rename(tmp_path / "val")
    (tmp_path / "x" / "masks").rename(tmp_path / "valannot")
    data = MaskFolder.split(tmp_path, "val", ignore_index=11)
    assert data.num_classes == 2 and 11 in data[0][1]
    with pytest.raises(FileNotFoundError, match=r"no split 'test': looked for test/images and"):
        MaskFolder.split(tmp_path, "test")
    other = MaskFolder(tmp_path / "val", tmp_path / "valannot", num_classes=2)
    with pytest.raises(ValueError, match="holds 11, expected 0 to 1 or 255"):
        other[0]


def test_what_does_not_fit(tmp_path):
    write(tmp_path, "a", "RGB")
    with pytest.raises(ValueError, match=r"a\.png is a picture of colours \(RGB\)"):
        MaskFolder(tmp_path / "images", tmp_path / "masks")
    write(tmp_path, "a")
    Image.new("L", (3, 3)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"\[3, 3\] pixels"):
        MaskFolder(tmp_path / "images", tmp_path / "masks")[0]
    (tmp_path / "masks" / "a.png").write_bytes(b"none")
    with pytest.raises(ValueError, match="is no picture"):
        read_mask(tmp_path / "masks" / "a.png")
    write(tmp_path, "a", size=(300, 300), values=range(251))
    whole = (tmp_path / "masks" / "a.png").read_bytes()
    (tmp_path / "masks" / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.png is damaged or ends early"):
        read_mask(tmp_path / "masks" / "a.png")
    with pytest.raises(FileNotFoundError):
        read_mask(tmp_path / "masks" / "none.png")
    write(tmp_path, "a")
    (tmp_path / "masks" / "a.bmp").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds a\.bmp and a\.png"):
        MaskFolder(tmp_path / "images", tmp_path / "masks")
    (tmp_path / "masks" / "a.bmp").unlink()
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 pictures in .* have no mask in .*, first a.jpg"):
        MaskFolder(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(ValueError, match="holds no pictures"):
        MaskFolder(tmp_path / "masks", tmp_path / "images")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        MaskFolder(tmp_path / "none", tmp_path / "masks")


def test_the_sample_that_ships():
    train, test = (MaskFolder.split(TREES, split) for split in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (20, 4, 2)
    image, mask = test[0]
    assert image.shape == (3, 256, 256) and 0.1 < mask.float().mean() < 0.6
