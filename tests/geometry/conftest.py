"""Point sets that are hard to answer about, and the backends that are here."""

from __future__ import annotations

import pytest
import torch

from pointcluster.ops.backend import SEARCHES, available

HERE = [name for name in SEARCHES if available(name)]


@pytest.fixture(params=[*HERE, "auto"])
def backend(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def make_points(kind, n, dim, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if kind == "lattice":  # exact ties everywhere
        pos = torch.randint(0, 4, (n, dim), generator=generator)
    elif kind == "coincident":
        pos = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        pos[n // 3 :] = pos[:1]
    elif kind == "far":  # float32 has few digits left at this place
        pos = 1e6 + torch.rand(n, dim, generator=generator, dtype=torch.float64)
    elif kind == "flat":
        pos = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        pos[:, 0] = 0.1
    else:
        pos = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return pos.to(dtype)


KINDS = ("random", "lattice", "coincident", "far", "flat")
