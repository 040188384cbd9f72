from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcluster.viz import match
from pointcluster.viz.match import match_clusters


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
    monkeypatch.setattr(match, "LARGEST", 0)
    found = match_clusters(first, renamed)
    assert (found[renamed] == first).all()
    with pytest.raises(ValueError, match="5 and 6 points"):
        match_clusters(np.zeros(5, int), np.zeros(6, int))
