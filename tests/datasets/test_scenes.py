from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster.datasets import (
    SceneFolder,
    read_scene,
    scan_file,
)
from pointcluster.datasets.scan_file import ScanFile
from pointcluster.datasets.scenes import MADE, SceneSurvey, check_features, code_table
from tests.datasets.scans import village, write_scan

ALL = ("intensity", "return_number", "number_of_returns", "height")
CLASSES = {"ground": [2], "tree": [4, 5], "house": [6]}


def test_a_scene_is_its_file(tmp_path):
    points = village(2000)
    data = read_scene(write_scan(tmp_path / "a.laz", points), features=ALL, classes=CLASSES)
    assert data.pos.dtype == torch.float32 and data.x.shape == (2000, 4) and data.name == "a"
    np.testing.assert_allclose(data.pos.double() + torch.tensor(data.origin), points["pos"],
                               atol=1e-3)  # fmt: skip
    assert np.array_equal(data.y, np.array([0] * 3 + [0, 0, 1, 2])[points["label"]])
    half = np.median(points["intensity"])
    assert abs(float(data.x[:, 0].median()) - 0.5) < 0.02
    np.testing.assert_allclose(data.x[:, 0], points["intensity"] / (2 * half), rtol=0.01)
    assert torch.equal(data.x[:, 2], torch.tensor((points["number_of_returns"] - 1) / 3).float())
    assert float(data.x[data.y == 2, 3].mean()) > 0.4  # height in 10 m
    assert "x" not in read_scene(tmp_path / "a.laz") and "y" not in read_scene(tmp_path / "a.laz")


def test_near_the_ground_decimetres_are_told(tmp_path):
    path = write_scan(tmp_path / "a.las", village(2000))
    data = read_scene(path, features=["near_ground", "height"], classes=CLASSES)
    assert data.x.shape == (2000, 3)
    coarse, fine = (torch.sinh(3 * data.x[:, column]) / 4 for column in (0, 1))
    torch.testing.assert_close(coarse, 10 * data.x[:, 2], rtol=1e-4, atol=1e-4)
    ground = data.y == 0
    assert float(fine[ground].abs().median()) < float(coarse[ground].abs().median())


def test_features_know_nothing_of_classes_and_pieces_change_nothing(tmp_path, monkeypatch):
    points = village(2000)
    one = read_scene(write_scan(tmp_path / "a.las", points), features=ALL, classes=CLASSES)
    monkeypatch.setattr(scan_file.ScanFile.pieces, "__defaults__", (300,))
    points["label"] = np.full(2000, 2, np.uint8)
    other = read_scene(write_scan(tmp_path / "b.las", points), features=ALL, classes=CLASSES)
    assert torch.equal(one.x, other.x) and torch.equal(one.pos, other.pos)


def test_what_a_file_lacks_is_said(tmp_path):
    points = village(100)
    points["intensity"][:] = 0
    path = write_scan(tmp_path / "a.las", points)
    with pytest.raises(ValueError, match="a.las has no intensity: it is 0 at all of its points"):
        read_scene(path, features=ALL)
    with pytest.raises(ValueError, match="a.las has no color, which is needed; it has intensity"):
        read_scene(path, features=["color"])
    np.save(tmp_path / "b.npy", points["pos"])
    with pytest.raises(ValueError, match="b.npy has no class of its points"):
        read_scene(tmp_path / "b.npy", classes=CLASSES)
    with pytest.raises(ValueError, match="b.npy has no intensity.*positions alone"):
        SceneSurvey(ScanFile(tmp_path / "b.npy"), ["intensity"])


def test_codes(tmp_path):
    path = write_scan(tmp_path / "a.las", village(300))
    data = read_scene(path, classes={"house": [6]})
    assert set(data.y.tolist()) == {-1, 0}
    with pytest.raises(ValueError, match="points of code 5, which is of no class and not ignored"):
        read_scene(path, classes={"house": [6]}, ignored=[2])
    assert code_table(CLASSES) == {2: 0, 4: 1, 5: 1, 6: 2}
    with pytest.raises(ValueError, match="code 2 stands for two classes"):
        code_table({"a": [2], "b": [2]})
    with pytest.raises(ValueError, match="there are no classes"):
        code_table({})


def test_features_have_names():
    assert check_features(["height", "color"]) == 4 and check_features([]) == 0
    assert check_features(MADE) == 3
    with pytest.raises(ValueError, match="features name"):
        check_features(["heat"])
    with pytest.raises(ValueError, match="twice"):
        check_features(["height", "height"])


def folder(tmp_path, suffix=".laz"):
    for number, name in enumerate(("train/a", "train/more/b", "test/c")):
        path = tmp_path / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        points = village(400, seed=number)
        if suffix == ".npy":
            rows = np.column_stack([points["pos"], points["label"]])
            np.save(path, rows)
        else:
            write_scan(path, points)
    return tmp_path


def test_a_folder_of_las(tmp_path):
    train = SceneFolder(folder(tmp_path))
    assert len(train) == 2 and train.classes == ["ground", "high vegetation", "building"]
    assert train.features == ALL and train.in_channels == 4 and train[0].x.shape == (400, 4)
    test = SceneFolder(tmp_path, "test", classes=train.codes, features=train.features)
    assert len(test) == 1 and test[0].name == "c" and test.num_classes == 3
    assert SceneFolder(tmp_path, None)[2].name == "b"
    few = SceneFolder(tmp_path, classes={"house": [6], "rest": [2]}, ignored=[5])
    assert set(few[0].y.tolist()) == {-1, 0, 1}
    few[0].y[:] = 7  # what was read stays as it was
    assert "SceneFolder(2 scenes, 2 classes)" == repr(few)


def test_a_folder_of_tables(tmp_path):
    data = SceneFolder(folder(tmp_path, ".npy"), columns="x y z label")
    assert data.classes == ["class 2", "class 5", "class 6"] and data.features == ("height",)
    assert data[0].x.shape == (400, 1)


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match="train is no folder"):
        SceneFolder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="has no scans"):
        SceneFolder(tmp_path)
    points = village(50)
    points["label"][:] = 2
    write_scan(tmp_path / "train" / "a.las", points)
    with pytest.raises(ValueError, match=r"have the codes \[2\], expected at least two classes"):
        SceneFolder(tmp_path)
    with pytest.raises(ValueError, match="split is 'val'"):
        SceneFolder(tmp_path, "val")
