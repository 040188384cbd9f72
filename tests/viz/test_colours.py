from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from skimage.color import rgb2lab

from pointcluster.viz import colours as module
from pointcluster.viz.colours import (
    PALETTE,
    cluster_colours,
    colour_nodes,
    colour_numbers,
    match_clusters,
)


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


@st.composite
def graphs(draw):
    """How much nodes touch, both ways."""
    count = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    half = np.triu(rng.integers(1, 9, (count, count)), 1)
    half *= rng.random(half.shape) < draw(st.floats(0, 0.8))
    return half + half.T


def crowded(dense, colours):
    """Whether in some set of nodes each touches as many of the set as there are colours."""
    left = np.ones(len(dense), dtype=bool)
    while left.any():
        few = left & ((dense[:, left] > 0).sum(axis=1) < colours)
        if not few.any():
            return True
        left &= ~few
    return False


@given(graphs(), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_nodes_that_touch_differ_unless_too_many_touch_one_another(dense, colours, seed, first):
    rng = np.random.default_rng(seed)
    graph, count = coo_array(dense).tocsr(), len(dense)
    wanted = rng.integers(-1, colours, count)
    size = rng.integers(1, 99, count)
    number = colour_nodes(
        graph, graph, rng.random((count, 2)), size, wanted, colours, crowded_first=first
    )
    assert number.min() >= 0 and number.max() < colours
    if not (first or crowded(dense, colours)):
        assert not ((number[:, None] == number) & (dense > 0)).any()
    # The largest of those that want a colour has it, or a node that touches it has.
    for m in range(count):
        beside = np.flatnonzero(dense[m])
        rival = (wanted[beside] == wanted[m]) & (size[beside] >= size[m])
        if wanted[m] >= 0 and number[m] != wanted[m] and not rival.any():
            assert (number[beside] == wanted[m]).any()


def test_more_clusters_than_colours_take_all_of_them_and_the_same_each_time():
    pos = np.random.default_rng(0).normal(size=(900, 3))
    cluster = np.random.default_rng(1).permutation(60).repeat(15)
    colours = cluster_colours(pos, cluster)
    assert len(np.unique(colours, axis=0)) == len(PALETTE)
    assert (cluster_colours(pos, cluster) == colours).all()


def test_bound_nodes_differ_where_they_can():
    # Two that do not touch, of one group; and where colours are short, those touch that differ.
    touch = coo_array(np.zeros((2, 2))).tocsr()
    bounds = coo_array(np.array([[0, 1], [1, 0]])).tocsr()
    middle, size = np.zeros((2, 2)), np.ones(2)
    wanted = np.array([0, 0])
    assert sorted(colour_nodes(touch, bounds, middle, size, wanted, 3)) != [0, 0]
    assert (colour_nodes(touch, touch, middle, size, wanted, 3) == 0).all()
    three = np.ones((3, 3)) - np.eye(3)
    chain = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    number = colour_nodes(
        coo_array(chain).tocsr(), coo_array(three).tocsr(), np.eye(3), np.ones(3),
        np.full(3, -1), 2,
    )  # fmt: skip
    assert number[0] == number[2] != number[1]


def test_where_colours_do_not_suffice_those_share_one_that_touch_least():
    dense = np.array([[0, 9, 9], [9, 0, 2], [9, 2, 0]])
    graph = coo_array(dense).tocsr()
    number = colour_nodes(graph, graph, np.eye(3), np.ones(3), np.array([0, -1, -1]), 2)
    assert number[1] == number[2] != number[0]


def test_crowded_nodes_first_colour_what_the_other_order_does_not():
    # Three groups that touch one another wholly: three colours suffice, though each touches 20.
    group = np.random.default_rng(0).permutation(np.arange(30) % 3)
    graph = coo_array((group[:, None] != group).astype(float)).tocsr()
    number = colour_nodes(
        graph, graph, np.zeros((30, 2)), np.ones(30), np.full(30, -1), 3, crowded_first=True
    )
    assert ((number[:, None] == number) == (group[:, None] == group)).all()


def compact(labels):
    return np.unique(labels, return_inverse=True)[1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_no_other_matching_shares_more_points(pairs):
    first, second = (compact(np.array(each)) for each in zip(*pairs, strict=True))
    found = match_clusters(first, second)
    used = found[found >= 0]
    assert len(set(used)) == len(used)

    def shared(of):
        return sum(((second == m) & (first == n)).sum() for m, n in enumerate(of) if n >= 0)

    choices = [*range(first.max() + 1), *[-1] * (second.max() + 1)]
    best = max(shared(each) for each in set(permutations(choices, int(second.max()) + 1)))
    assert shared(found) == best
    assert all(((second == m) & (first == n)).any() for m, n in enumerate(found) if n >= 0)


def test_very_many_are_matched_by_size(monkeypatch):
    rng = np.random.default_rng(0)
    first = compact(rng.integers(0, 50, 400))
    renamed = rng.permutation(50)[first]
    monkeypatch.setattr(module, "LARGEST", 0)
    found = match_clusters(first, renamed)
    assert (found[renamed] == first).all()
    with pytest.raises(ValueError, match="5 and 6 points"):
        match_clusters(np.zeros(5, int), np.zeros(6, int))
