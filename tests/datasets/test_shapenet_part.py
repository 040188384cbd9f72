from __future__ import annotations

import json
import warnings

import pytest
import torch

from pointcluster.datasets import ShapeNetPart


@pytest.fixture
def root(tmp_path):
    """Three mugs and three caps as the archive has them."""
    raw = tmp_path / "raw"
    generator = torch.Generator().manual_seed(0)
    for folder in ShapeNetPart.category_ids.values():
        (raw / folder).mkdir(parents=True)
    (raw / "train_test_split").mkdir()
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        names = []
        for category, first in (("Cap", 6), ("Mug", 36)):
            folder = ShapeNetPart.category_ids[category]
            for number in range(count):
                rows = torch.rand(30, 6, generator=generator).tolist()
                lines = [" ".join(f"{v:.6f}" for v in row) + f" {first + i % 2}.000000"
                         for i, row in enumerate(rows)]  # fmt: skip
                name = f"{folder}/{split}{number}"
                (raw / f"{name}.txt").write_text("\n".join(lines) + "\n")
                names.append(f"shape_data/{name}")
        text = json.dumps(names)
        (raw / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(text)
    return tmp_path


def make(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyG's reading and saving
        return ShapeNetPart(*args, **options)


def test_normals_and_the_category_are_features(root, capsys):
    train, test = make(root, "train"), make(root, "test")
    assert len(train) == 4 and len(test) == 2 and len(make(root)) == 6
    item = test[1]
    assert item.pos.shape == (30, 3) and item.x.shape == (30, 19) == (30, test.in_channels)
    assert item.category.tolist() == [11] and item.x[:, 3:].argmax(dim=1).tolist() == [11] * 30
    assert set(item.y.tolist()) == {36, 37} and test.num_classes == len(test.classes) == 50
    assert test.classes[36] == "Mug 0"


def test_some_categories_keep_their_place_among_all(root, capsys):
    mugs = make(root, "test", categories="Mug", normals=False)
    assert len(mugs) == 1 and mugs[0].x.shape == (30, 16)
    assert mugs[0].category.tolist() == [11] and float(mugs[0].x[:, 11].min()) == 1
    with pytest.raises(ValueError, match="categories name"):
        make(root, categories=["Spoon"])
