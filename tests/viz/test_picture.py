from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from pointcluster.viz import draw
from pointcluster.viz.picture import new_figure, save_figure


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


def test_the_point_under_a_pixel(picture, cloud):
    for data, found in (picture, cloud):
        drawn = draw(data, found)
        for number, panel in enumerate(drawn.panels):
            for point in (0, 77):
                where, found_point = drawn.point_at(*panel.where[point])
                assert where == number
                near = np.linalg.norm(panel.where[found_point] - panel.where[point])
                assert near < 1e-9
        assert drawn.point_at(-5, 3) is None


def test_a_picture_for_notebooks_and_no_global_state(picture):
    drawn = draw(*picture)
    assert drawn._repr_png_().startswith(b"\x89PNG")
    height, width = drawn.array().shape[:2]
    assert repr(drawn) == f"Picture({width} x {height}, 1 panels)"
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    message = r"^matplotlib is not installed: pip install 'pointcluster\[viz\]'"
    with pytest.raises(ImportError, match=message):
        new_figure(1, 1)
