from __future__ import annotations

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.obj import read_obj

TWO = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 5\nv 1 0 5\nv 0 1 5\nf -3 -2 -1\n"


def test_negative_corners_count_from_the_vertices_read_so_far(tmp_path):
    pytest.importorskip("trimesh")
    found = read_obj(TWO.encode())
    assert [each.tolist() for each in found["polygons"]] == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "a.obj").write_text(TWO)
    z = read_points(tmp_path / "a.obj", mesh_points=1000).pos[:, 2]
    assert set(z.unique().tolist()) == {0.0, 5.0} and abs(float((z > 0).float().mean()) - 0.5) < 0.1


@pytest.mark.parametrize("text", [
    "v 0 0 0\nv 1 0 0\nv 0 1 0\nf\t1 2 3\n",
    "v\t0 0 0\n  v 1 0 0\n\tv 0 1 0\n   f 1 2 3\n",
    "\ufeffv 0 0 0\nv 1 0 0 # right\nv 0 1 0\nf 1 2 3 # all\n",
    "v 0 0 \\\n0\nv 1 \\\n 0 0\nv 0 1 0\nf 1 \\\r\n2 3\n",
    "v 0 0 0\r\nv 1 0 0\r\nv 0 1 0\r\nvt 0 0\r\nvn 0 0 1\r\nf 1/1/1 2//1 3/1\r\n",
    "# of C:\\a\\\nv 0 0 0\nmtllib C:\\b\\\nv 1 0 0 # c\\\nv 0 1 0\n#\nf\\\n 1 2 3\\",
    "o a\ng b\nusemtl c\ns off\nv 0 0 0 1.0\nv 1 0 0 1.0\nv 0 1 0 1.0\nl 1 2\np 1\nf 1 2 -1\n",
], ids=["tab", "indented", "comments", "continued", "textures", "paths", "others"])  # fmt: skip
def test_ways_to_write_a_triangle(text):
    found = read_obj(text.encode())
    assert found["pos"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert [each.tolist() for each in found["polygons"]] == [[0, 1, 2]]


def test_colours_are_those_of_all_vertices_or_none(tmp_path):
    pytest.importorskip("trimesh")
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0 255 128 64\nv 1 0 0 255 128 64\nv 0 1 0 255 128 64\nf 1 2 3\n")
    color = read_points(path, mesh_points=9).color.numpy()
    np.testing.assert_allclose(color, np.tile([1, 128 / 255, 64 / 255], (9, 1)), atol=1e-6)
    path.write_text("v 0 0 0 1 0.5 0.25\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert "color" not in read_points(path, mesh_points=9)


def test_a_face_of_many_continued_lines_takes_little_time():
    # Were all that went before split anew for each line, this would take minutes.
    found = read_obj(b"v 0 0 0\nv 1 0 0\nf " + b"1 \\\n2 \\\n" * 50_000)
    assert found["polygons"][0].tolist() == [0, 1] * 50_000


@pytest.mark.parametrize(("text", "message"), [
    ("v 0 0\n", "a vertex has 2 numbers"),
    ("v 0 0 x\n", "line 1: could not convert"),
    ("v 0 0 0\nf 1 0 1\n", "line 2: a face has vertex 0 as a corner"),
    ("v 0 0 0\nf -2 1 1\n", "line 2: a face has vertex -2 as a corner, of 1 before it"),
    ("v 0 0 0\nf 1 one 1\n", "line 2: invalid literal"),
])  # fmt: skip
def test_damaged(text, message):
    with pytest.raises(ValueError, match=message):
        read_obj(text.encode())
