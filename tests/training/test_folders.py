from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointcluster.training import cloud_folder, image_folder


def make(root, suffix, parts=("train", "test"), classes=("cup", "hat"), count=2):
    rng = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                path = folder / f"{i}{suffix}"
                if suffix == ".npy":
                    np.save(path, rng.random((50, 3)))
                else:
                    Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def test_clouds_have_points_to_choose_from(tmp_path):
    train, test = cloud_folder(make(tmp_path, ".npy"), 16)
    assert (len(train), len(test), list(train.classes)) == (4, 4, ["cup", "hat"])
    assert train[0].pos.shape == (50, 3)


def test_pictures_have_a_part_to_train_on_or_none(tmp_path):
    make(tmp_path, ".png", parts=("train", "val"))
    train, test = image_folder(tmp_path)
    assert (len(train), len(test), test.on_error) == (4, 4, "raise")
    assert image_folder(tmp_path, on_error="skip")[1].on_error == "drop"
    (tmp_path / "train").rename(tmp_path / "away")
    assert image_folder(tmp_path, train=False)[0] == ()
    with pytest.raises(ValueError, match=r"there is no folder .*train"):
        image_folder(tmp_path)


def test_both_parts_have_the_same_classes(tmp_path):
    make(tmp_path / "a", ".npy")
    make(tmp_path / "a", ".npy", parts=("train",), classes=("shoe",))
    with pytest.raises(ValueError, match="train and test differ: only train has shoe"):
        cloud_folder(tmp_path / "a", 16)
    make(tmp_path / "b", ".png", parts=("train", "val"))
    make(tmp_path / "b", ".png", parts=("val",), classes=("shoe",))
    with pytest.raises(ValueError, match="have other classes: shoe is only in val/"):
        image_folder(tmp_path / "b")


def test_one_class_and_no_folder(tmp_path):
    make(tmp_path, ".npy", classes=("cup",))
    with pytest.raises(ValueError, match="there is one class, cup, expected at least two"):
        cloud_folder(tmp_path, 16)
    with pytest.raises(ValueError, match="there is no folder"):
        cloud_folder(tmp_path / "nowhere", 16)
