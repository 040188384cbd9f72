from __future__ import annotations

import numpy as np

from pointcluster.viz.camera import project


def test_up_is_up_and_near_is_near():
    corners = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0.0]])
    screen, depth = project(corners)
    assert screen[0, 1] > 0.9 and abs(screen[0, 0]) < 1e-9
    assert depth[2] > depth[3]
    assert screen[4, 0] > screen[5, 0]
    assert np.allclose(np.linalg.norm(np.c_[screen, depth], axis=1), 1)
