from __future__ import annotations

import numpy as np
import pytest

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.off import read_off

pytest.importorskip("trimesh")

POS = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]])
NORMALS = np.array([[0.0, 0, 1], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0]])
SHARES = np.array([[0, 0.2, 1], [1, 0.4, 0], [0.6, 0, 0], [0, 0.8, 0]])
BYTES = np.c_[SHARES * 255, np.full(4, 255)]


def write(path, word, *columns, faces=()):
    rows = np.hstack([POS, *columns])
    lines = [word, f"{len(rows)} {len(faces)} 0", *(" ".join(f"{v:g}" for v in r) for r in rows)]
    path.write_text("\n".join([*lines, *faces, ""]))
    return path


def close(found, expected, atol=1e-6):
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("colors", [BYTES, BYTES[:, :3], SHARES, np.c_[SHARES, [1, 0.5, 1, 1]]])
@pytest.mark.parametrize("texture", [False, True])
@pytest.mark.parametrize("normals", [False, True])
def test_normals_and_colours_of_vertices(tmp_path, colors, normals, texture):
    word, more = ("ST" if texture else "") + "C" + ("N" if normals else "") + "OFF", [colors]
    more = ([NORMALS] if normals else []) + more + ([POS[:, :2]] if texture else [])
    data = read_points(write(tmp_path / "a.off", word, *more))
    close(data.pos, POS)
    close(data.color, SHARES)
    assert ("normal" in data) == normals
    if normals:
        close(data.normal, NORMALS)


def test_normals_alone(tmp_path):
    data = read_points(write(tmp_path / "a.off", "NOFF", NORMALS))
    close(data.normal, NORMALS)
    assert "color" not in data
    write(tmp_path / "a.off", "NOFF", NORMALS, faces=["3 0 1 2"])
    data = read_points(tmp_path / "a.off", mesh_points=9)  # of the face, as in all meshes
    close(data.normal, np.tile([0, 0, 1], (9, 1)))


def test_colours_of_vertices_are_spread_over_faces(tmp_path):
    data = read_points(write(tmp_path / "a.off", "COFF", BYTES, faces=["3 0 1 2"]), mesh_points=99)
    x, y = data.pos[:, :1].numpy(), data.pos[:, 1:2].numpy()
    close(data.color, SHARES[0] + x * (SHARES[1] - SHARES[0]) + y * (SHARES[2] - SHARES[1]))


@pytest.mark.parametrize(
    "rows",
    [
        ["3 0 1 2 255 0 0", "3 0 2 3 0 0 255"],
        ["3 0 1 2 255 0 0 255", "3 0 2 3 0 0 255 255"],
        ["3 0 1 2 1.0 0 0", "3 0 2 3 0 0 1.0"],
        ["3 0 1 2 255 0 0", "4 0 2 3 0 0 0 255"],  # a corner twice, in a polygon of four
    ],
)
def test_colours_of_faces(tmp_path, rows):
    data = read_points(write(tmp_path / "a.off", "OFF", faces=rows), mesh_points=60)
    first = (data.pos[:, 0] > data.pos[:, 1]).numpy()[:, None]
    close(data.color, np.where(first, [1, 0, 0], [0, 0, 1]))


@pytest.mark.parametrize("rows", [["3 0 1 2 7", "3 0 2 3 7"], ["3 0 1 2 9 9 9", "3 0 2 3"]])
def test_an_index_of_a_colour_or_a_colour_of_some_faces_is_none(tmp_path, rows):
    data = read_points(write(tmp_path / "a.off", "OFF", faces=rows), mesh_points=9)
    assert "color" not in data and data.num_nodes == 9


def test_comments_numbers_in_the_first_line_and_more_columns():
    text = b"# Stra\xdfe\nOFF2 1 0 # counts\n\n1 2 3 9 9\n4 5 6\n2 0 1 # an edge\n"
    found = read_off(text)
    assert found["pos"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert np.shape(found["polygons"]) == (1, 2) and "color" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4OFF\n1 0 0\n1 2 3 4\n", "more or fewer than three coordinates"),
        ("nOFF\n3\n1 0 0\n1 2 3\n", "OFF"),
        ("OFF BINARY\n1 0 0\n", "binary form of OFF"),
        ("OFFSET\n1 0 0\n", "does not begin with OFF"),
        ("OFF\n-1 0 0\n", "does not begin with OFF"),
        ("OFF\n2 0 0\n1 2 3\n", "2 vertices and faces announced, 1 there"),
        ("COFF\n1 0 0\n1 2 3\n", "vertices have 3 numbers"),
        ("NOFF\n1 0 0\n1 2 3 4\n", "vertices have 4 numbers"),
        ("COFF\n1 0 0\n1 2 3 4 5 6 7 8\n", "vertices have 8 numbers"),
        ("COFF\n1 0 0\n1 2 3 -4 5 6\n", "colours go from -4 to 6"),
        ("OFF\n1 0 0\n1 2 x\n", "x"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "announces 3 corners and has 2 numbers"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1\n", "announces -3 corners"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 1.5\n", "is no whole number"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 nan\n", "is no whole number"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "a.off").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.off.*{message}"):
        read_points(tmp_path / "a.off")
