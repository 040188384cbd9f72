from __future__ import annotations

import pytest
from matplotlib.image import imread

from pointcluster.viz.figure import new_figure, save_figure


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = save_figure(new_figure(1, 2), tmp_path / "a.png")
    assert imread(path).shape[:2] == (300, 150)
    before = path.read_bytes()
    broken = new_figure(1, 1)
    broken.add_axes((0, 0, 1, 1)).set_title("$\\nothing$")
    with pytest.raises(ValueError):
        save_figure(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
