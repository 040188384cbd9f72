from __future__ import annotations

import numpy as np

from pointcluster.viz.palette import PALETTE, cluster_colours


def test_eight_clusters_all_differ():
    pos = np.random.default_rng(0).normal(size=(80, 3))
    colours = cluster_colours(pos, np.arange(80) % 8 * 100)
    assert len(np.unique(colours[:8], axis=0)) == len(PALETTE) == 8
    for m in range(8):
        assert (colours[m::8] == colours[m]).all()


def test_neighbours_differ():
    # 64 clusters in a line: none is coloured as the next, or the one after
    pos = np.stack([np.repeat(np.arange(64.0), 3), np.zeros(192), np.zeros(192)], axis=1)
    colours = cluster_colours(pos, np.repeat(np.arange(64), 3))[::3]
    for step in (1, 2, 3):
        assert (np.abs(colours[step:] - colours[:-step]).sum(axis=1) > 0).all()


def test_numbers_of_clusters_do_not_matter():
    pos = np.random.default_rng(0).normal(size=(60, 3))
    cluster = np.arange(60) % 12
    renamed = np.random.default_rng(1).permutation(12)[cluster] + 1000
    assert np.array_equal(cluster_colours(pos, cluster), cluster_colours(pos, renamed))
