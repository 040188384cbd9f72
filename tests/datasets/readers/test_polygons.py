from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.datasets import read_points
from pointcluster.datasets.readers.polygons import triangulate

ARROW = np.array([[0.0, 0], [4, 0], [4, 4], [2, 1], [0, 4]])  # area 10, not convex


def turned(flat, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return flat @ axes[:2] + rng.normal(size=3)


def areas(pos, faces):
    a, b, c = (pos[faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def test_polygons_of_any_length():
    pos = np.random.default_rng(0).normal(size=(8, 3)) * [1, 1, 0]
    angle = np.arange(5) * 2 * np.pi / 5
    pos[:5] = np.c_[np.cos(angle), np.sin(angle), 0 * angle]
    faces, owner = triangulate(pos, [np.arange(5), np.array([7, 6]), np.array([5, 6, 7])])
    found = sorted(zip(owner.tolist(), faces.tolist(), strict=True))
    assert found == [(0, [0, 1, 2]), (0, [0, 2, 3]), (0, [0, 3, 4]), (2, [5, 6, 7])]
    faces, owner = triangulate(pos, np.array([[0, 1, 2, 3]]))
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]] and owner.tolist() == [0, 0]
    assert triangulate(pos, [])[0].shape == triangulate(pos, np.zeros((0, 4)))[0].shape == (0, 3)


@given(st.integers(0, 50), st.integers(0, 4), st.booleans())
def test_an_arrow_in_space_from_any_corner(seed, start, back):
    order = np.roll(np.arange(5), start)[:: -1 if back else 1]
    pos = turned(ARROW, seed)
    faces, owner = triangulate(pos, order[None])
    assert len(faces) == 3 and owner.tolist() == [0, 0, 0]
    assert areas(pos, faces).sum() == pytest.approx(10)
    a, b, c = (pos[faces[:, i]] for i in range(3))  # all turn as the polygon does
    normals = np.cross(b - a, c - a)
    whole = np.cross(pos[order], np.roll(pos[order], -1, 0)).sum(0)
    assert (normals @ whole > 0).all()


@pytest.mark.parametrize(("flat", "area"), [
    ([[0, 0], [4, 0], [1, 1], [0, 4]], 4.0),  # a concave quad
    ([[0, 0], [1, 0], [2, 0], [2, 2], [0, 2]], 4.0),  # corners in a line
    ([[0, 0], [6, 0], [6, 4], [5, 4], [5, 1], [1, 1], [1, 4], [0, 4]], 12.0),  # a U
])  # fmt: skip
def test_other_shapes(flat, area):
    pos = turned(np.array(flat, float))
    for start in range(len(pos)):
        faces, _ = triangulate(pos, np.roll(np.arange(len(pos)), start)[None])
        assert areas(pos, faces).sum() == pytest.approx(area)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply"])
def test_no_point_lies_outside(tmp_path, suffix):
    pytest.importorskip("trimesh")
    rows = [f"{x:g} {y:g} 0" for x, y in ARROW]
    if suffix == ".obj":
        text = "\n".join([*(f"v {row}" for row in rows), "f 1 2 3 4 5"])
    elif suffix == ".off":
        text = "\n".join(["OFF", "5 1 0", *rows, "5 0 1 2 3 4"])
    else:
        names = "".join(f"property float {axis}\n" for axis in "xyz")
        text = f"ply\nformat ascii 1.0\nelement vertex 5\n{names}element face 1\n"
        text += "property list uchar int vertex_indices\nend_header\n"
        text += "\n".join([*rows, "5 0 1 2 3 4"])
    path = tmp_path / f"a{suffix}"
    path.write_text(text + "\n")
    x, y, _ = read_points(path, mesh_points=4000).pos.double().numpy().T
    roof = np.where(x < 2, 4 - 1.5 * x, 1 + 1.5 * (x - 2))  # of the notch
    assert (y <= roof + 1e-5).all() and x.min() > -1e-6 and x.max() < 4 + 1e-6
    assert abs((x < 2).mean() - 0.5) < 0.05


def test_without_the_package_only_what_needs_it_fails(monkeypatch):
    monkeypatch.setitem(sys.modules, "mapbox_earcut", None)
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert len(triangulate(square, np.arange(4)[None])[0]) == 2
    with pytest.raises(ImportError, match="pip install mapbox_earcut"):
        triangulate(np.c_[ARROW, np.zeros(5)], np.arange(5)[None])
