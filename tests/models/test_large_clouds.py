"""A scan of a million points goes through a network in bounded memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def peak(size: int) -> int:
    """Runs in a process of its own: bytes that the network's features of one cloud take."""
    from measure import peak_memory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model("point_coc_tiny").eval()
    data = Data(pos=torch.rand(size, 3))
    with torch.no_grad():
        model.forward_features(Data(pos=torch.rand(1000, 3)))  # what is loaded once
        return peak_memory(lambda: model.forward_features(data))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_million_points(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from measure import in_child

    # Measured: 0.63 GiB. Without parts it was 0.95.
    assert in_child(peak, 1_000_000) < 0.8 * 2**30
