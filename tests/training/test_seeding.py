from __future__ import annotations

import random

import numpy as np
import torch

from pointcluster.training.seeding import mix, seeded


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_same_keys_same_numbers():
    with seeded(1, 2, 3):
        first = draw()
    with seeded(1, 2, 3):
        assert draw() == first
    with seeded(1, 3, 2):
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_outside_nothing_changes():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with seeded(5):
        draw()
    assert draw() == expected


def test_mix_spreads():
    seeds = {mix(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and 0 <= min(seeds) and max(seeds) < 2**63
