from __future__ import annotations

import numpy as np
import pytest

from pointcluster.datasets import read_points

pytest.importorskip("trimesh")

FACET = "facet normal 0 0 1\n outer loop\n  vertex 0 0 {0}\n  vertex 1 0 {0}\n  vertex 0 1 {0}\n"
FACET += " endloop\nendfacet\n"


@pytest.mark.parametrize("name", ["", "a facet of glass"])
def test_text(tmp_path, name):
    text = f"solid {name}\n{FACET.format(0)}{FACET.format(5)}endsolid {name}\n"
    (tmp_path / "a.stl").write_text(text)
    data = read_points(tmp_path / "a.stl", mesh_points=60)
    assert set(data.pos[:, 2].tolist()) == {0, 5}
    assert np.unique(data.normal.numpy(), axis=0).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("word", ["outer", "vertex 0 1 5", "endfacet\nendsolid"])
def test_text_that_is_cut_off_is_said_to_be(tmp_path, word):
    text = f"solid a\n{FACET.format(0)}{FACET.format(5)}endsolid\n"
    (tmp_path / "a.stl").write_text(text[: text.rindex(word)])
    with pytest.raises(ValueError, match=r"a\.stl .* it is cut off: 2 facets begin and 1 end"):
        read_points(tmp_path / "a.stl")
    (tmp_path / "a.stl").write_text(text[: text.rindex("endsolid")])
    with pytest.raises(ValueError, match=r"a\.stl .* it is cut off: .* with endsolid"):
        read_points(tmp_path / "a.stl")
