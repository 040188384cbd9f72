"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix(*keys: int) -> int:
    """One well-spread 63-bit seed from several non-negative numbers."""
    high, low = np.random.SeedSequence(keys).generate_state(2)
    return (int(high) << 32 | int(low)) >> 1


@contextmanager
def seeded(*keys: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's CPU generators inside the block, and restores them after.

    Transforms draw from these three. With ``seeded(seed, epoch, index)`` around them, a cloud is
    augmented alike in any worker process, in any order, and after a resume.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = mix(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # not torch.manual_seed, which would touch the generators of GPUs as well
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
