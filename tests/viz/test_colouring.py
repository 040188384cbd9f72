from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array

from pointcluster.viz.colouring import colour_nodes, smallest_last


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


@given(graphs())
def test_each_comes_after_as_few_neighbours_as_can_be(dense):
    order = smallest_last(coo_array(dense).tocsr())
    assert sorted(order) == list(range(len(dense)))
    for i, m in enumerate(order):
        before = (dense[np.ix_(order[: i + 1], order[: i + 1])] > 0).sum(axis=1)
        assert (dense[m, order[:i]] > 0).sum() == before.min()


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
