from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.datasets import ModelNet40
from pointcluster.datasets import modelnet40_resampled as module

FOLDER = "modelnet40_normal_resampled"
SIZES = (3, 1)
CLASSES = ["night_stand", *(f"class{i}" for i in range(39))]


def cloud(seed):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(10_000, 3))
    pos = 3 + 2 * normal / np.linalg.norm(normal, axis=1, keepdims=True) * [1, 0.5, 0.2]
    return np.hstack([pos, normal / np.linalg.norm(normal, axis=1, keepdims=True)])


@pytest.fixture(scope="module")
def texts():
    """The genuine form: a line a point, with six decimals."""
    rows = [np.char.mod("%.6f", cloud(seed)) for seed in range(4)]
    return ["\n".join(map(",".join, lines)) + "\n" for lines in rows]


@pytest.fixture
def root(tmp_path, texts):
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    train = ["night_stand_0001", "class7_0002", "class7_0001"]
    (folder / "modelnet40_train.txt").write_text("\n".join(train) + "\n")
    (folder / "modelnet40_test.txt").write_text("class38_0101\n")
    for shape, text in zip([*train, "class38_0101"], texts, strict=True):
        name = shape.rpartition("_")[0]
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{shape}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_reads_text_files(root, inside):
    data = ModelNet40(root / FOLDER if inside else root, form="resampled", sizes=SIZES)
    assert [int(item.y) for item in data] == [0, 8, 8]  # in the order of the list
    assert (len(data), data.num_points, data.classes[0]) == (3, 10_000, "night_stand")
    assert data.describe() == "ModelNet40 resampled, 10,000 points"
    assert repr(data) == "ModelNet40(3, split='train', form='resampled')"
    item, expected = data[1], cloud(1)
    assert item.pos.dtype == item.normal.dtype == torch.float32
    pos = expected[:, :3] - expected[:, :3].mean(axis=0)
    pos /= np.linalg.norm(pos, axis=1).max()
    assert np.abs(item.pos.numpy() - pos).max() < 2e-6
    assert np.abs(item.normal.numpy() - expected[:, 3:]).max() < 1e-6
    assert ModelNet40(root, "test", form="resampled", sizes=SIZES)[0].y.tolist() == [39]


def test_first_points_of_each(root):
    whole = ModelNet40(root, form="resampled", sizes=SIZES)
    some = ModelNet40(root, form="resampled", num_points=64, sizes=SIZES)
    assert some.num_points == 64
    without = ModelNet40(root, form="resampled", num_points=64, normals=False, sizes=SIZES)
    assert set(without[0].keys()) == {"pos", "y"} and torch.equal(without[0].pos, some[0].pos)
    for a, b in zip(whole, some, strict=True):
        assert torch.equal(a.pos[:64], b.pos) and torch.equal(a.normal[:64], b.normal)


def test_read_once_until_a_file_changes(root, monkeypatch):
    first = ModelNet40(root, form="resampled", sizes=SIZES)
    read, calls = module._read, []
    monkeypatch.setattr(module, "_read", lambda path: calls.append(path) or read(path))
    second = ModelNet40(root, form="resampled", sizes=SIZES)
    assert not calls and torch.equal(first[2].pos, second[2].pos)
    path = root / FOLDER / "class7" / "class7_0001.txt"
    path.write_text((root / FOLDER / "night_stand" / "night_stand_0001.txt").read_text() + "\n")
    third = ModelNet40(root, form="resampled", sizes=SIZES)
    assert len(calls) == 3 and torch.equal(third[2].pos, first[0].pos)
    # another order of the same files is another data set
    listing = root / FOLDER / "modelnet40_train.txt"
    listing.write_text("class7_0002\nnight_stand_0001\nclass7_0001\n")
    assert [int(y) for y in ModelNet40(root, form="resampled", sizes=SIZES).y] == [8, 0, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n1,2,x,4,5,6\n", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n1,2,3\n", "is damaged or is no list of numbers"),
        ("1,2,3,4,5,6\n", "holds 1 lines of 6 numbers, expected 10,000 of 6"),
        ("1,2,3\n" * 10_000, "holds 10,000 lines of 3 numbers"),
        ("1,2,3,4,5,6\n" * 9_999 + "1,2,nan,4,5,6\n", "has NaN or infinite"),
    ],
)
def test_damaged_file(root, text, message):
    (root / FOLDER / "class7" / "class7_0001.txt").write_text(text)
    with pytest.raises(ValueError, match=f"class7_0001.txt {message}"):
        ModelNet40(root, form="resampled", sizes=SIZES)
    assert not list((root / FOLDER).glob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["class7/class7_0001.txt", "modelnet40_train.txt", "modelnet40_shape_names.txt"]
)
def test_missing_file(root, name):
    (root / FOLDER / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing|no ModelNet40 in"):
        ModelNet40(root, form="resampled", sizes=SIZES)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("modelnet40_train.txt", "", "is empty"),
        ("modelnet40_train.txt", "lamp_0001\n", "names 'lamp_0001', which is of no class"),
        ("modelnet40_train.txt", "class7_0001\nclass7_0001\n", "names a shape twice"),
        ("modelnet40_shape_names.txt", "night_stand\nclass7\n", "names 2 classes, expected 40"),
    ],
)
def test_lists(root, name, text, message):
    (root / FOLDER / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        ModelNet40(root, form="resampled", sizes=SIZES)


def test_number_of_clouds_is_checked(root):
    with pytest.raises(ValueError, match="train split has 3 clouds, not 9,843"):
        ModelNet40(root, form="resampled")
