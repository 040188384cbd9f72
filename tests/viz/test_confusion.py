from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from pointcluster.viz import confusion_picture


@pytest.mark.parametrize("number", [2, 40])
def test_diagonal_is_dark(tmp_path, number):
    names = [f"class {i}" for i in range(number)]
    path = confusion_picture(tmp_path / "a.png", np.eye(number, dtype=int) * 9, names, heading="x")
    picture = imread(path)[..., :3]
    dark = (picture[..., 2] - picture[..., 0] > 0.2).nonzero()  # blue cells, and the bar
    rows, columns = dark[0], dark[1]
    inside = columns < np.percentile(columns, 50)
    assert np.corrcoef(rows[inside], columns[inside])[0, 1] > 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_class_without_clouds(tmp_path):
    assert confusion_picture(tmp_path / "a.png", np.array([[0, 0], [1, 2]]), ["a", "b"]).exists()


def test_size_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"matrix is \[2, 2\], expected \[3, 3\]"):
        confusion_picture(tmp_path / "a.png", np.eye(2), ["a", "b", "c"])
