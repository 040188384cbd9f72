from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pointcluster.viz.borders import NEAREST, border_lines, contacts, nearest


def pairs(found):
    return {tuple(sorted(each)) for each in found.tolist()}


@given(st.integers(1, 6), st.integers(1, 6))
def test_pixels_side_by_side_touch(height, width):
    pos = np.stack(np.divmod(np.arange(height * width), width), axis=1)
    expected = {
        (a, b)
        for a in range(len(pos))
        for b in range(a + 1, len(pos))
        if np.abs(pos[a] - pos[b]).sum() == 1
    }
    assert pairs(contacts(pos, np.arange(len(pos)).reshape(height, width))) == expected


def test_points_around_pixels_without_one_touch():
    shows = np.array([[0, -1, -1, -1, 1, -1, 2]])
    assert pairs(contacts(np.zeros((3, 2)), shows)) == {(0, 1), (1, 2)}


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12).map(
    lambda shape: (shape[0], 3)), elements=st.integers(-3, 3)))  # fmt: skip
def test_near_points_of_a_cloud_touch(pos):
    near = nearest(pos)
    assert near.shape == (len(pos), min(NEAREST + 1, len(pos)))
    assert (near[:, 0] == np.arange(len(pos))).all()
    away = np.linalg.norm(pos[:, None] - pos, axis=2)
    for i, row in enumerate(near):
        assert len(set(row)) == len(row)
        np.testing.assert_allclose(np.sort(away[i, row]), np.sort(away[i])[: len(row)])
    found = contacts(pos)
    assert found.shape == (near[:, 1:].size, 2)
    assert pairs(found) == {
        tuple(sorted((i, int(j)))) for i, row in enumerate(near) for j in row[1:]
    }


@given(
    arrays(
        np.int64,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements={"max_value": 2, "min_value": 0},
    )
)
def test_a_line_lies_wherever_labels_differ(label):
    edges = set()
    for (x1, y1), (x2, y2) in border_lines(label):
        assert (x1 == x2) != (y1 == y2)
        for i in range(round(abs(x2 - x1) + abs(y2 - y1))):
            edge = (x1 + i, y1, x1 + i + 1, y1) if y1 == y2 else (x1, y1 + i, x1, y1 + i + 1)
            assert edge not in edges
            edges.add(edge)
    expected = set()
    for r in range(label.shape[0]):
        for c in range(label.shape[1]):
            if r and label[r, c] != label[r - 1, c]:
                expected.add((c - 0.5, r - 0.5, c + 0.5, r - 0.5))
            if c and label[r, c] != label[r, c - 1]:
                expected.add((c - 0.5, r - 0.5, c - 0.5, r + 0.5))
    assert edges == expected
