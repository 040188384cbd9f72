from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from pointcluster.viz.palette import PALETTE, cluster_colours, colour_numbers


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


# How colours look without the long, middle or short cones: Machado et al., 2009, in linear light.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
    "all": np.eye(3),
}  # fmt: skip


@pytest.mark.parametrize("kind", BLIND)
def test_colours_are_told_apart_by_every_kind_of_eye(kind):
    linear = np.where(PALETTE <= 0.04045, PALETTE / 12.92, ((PALETTE + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.transpose(BLIND[kind])).clip(0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(len(PALETTE), 1)]
    assert apart.min() > 12  # 2.3 are just noticeable


def test_wanted_colours_are_given_unless_a_neighbour_has_them():
    pos = np.arange(40.0)[:, None]
    chain = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    cluster = np.arange(40) // 10  # four in a row
    number = colour_numbers(pos, cluster, chain, wanted=np.array([5, -1, 5, 3]))
    assert number[0] == 5 and number[3] == 3 and len(set(number)) == 4
    wanted = np.where(np.arange(40) % 2, 5, -1)
    number = colour_numbers(pos, np.arange(40), chain, wanted=wanted)
    assert (number[1::2] == 5).all() and (np.diff(number) != 0).all()
    # ... of those that touch, the larger one gets it
    number = colour_numbers(pos, np.arange(40) // 3, chain, wanted=np.full(14, 2))
    assert (number == 2).sum() == 7 and (np.diff(number) != 0).all()


def test_clusters_of_one_region_differ_even_where_they_do_not_touch():
    pos = np.arange(60.0)[:, None]
    chain = np.stack([np.arange(59), np.arange(1, 60)], axis=1)
    region = np.arange(60) % 10  # of six clusters each, far from one another
    number = colour_numbers(pos, np.arange(60), chain, region=region, wanted=np.full(60, 4))
    for each in range(10):
        assert len(set(number[region == each])) == 6
    assert (np.diff(number) != 0).all()
    # more than there are colours: what touches differs all the same
    number = colour_numbers(pos, np.arange(60), chain, region=np.arange(60) // 30)
    assert (np.diff(number) != 0).all() and len(set(number)) == len(PALETTE)
