from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from pointcluster.viz.borders import border_lines


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
