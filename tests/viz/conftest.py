from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models.results import PointClusters
from pointcluster.viz.open3d import load_open3d

ROOT = Path(__file__).parents[2]


def cluster(index, pos, centers, region=None):
    """Clusters of one cloud, made by hand."""
    index = torch.as_tensor(index)
    index = index[:, None] if index.dim() == 1 else index
    zeros = torch.zeros(len(index), dtype=torch.int64)
    return PointClusters(
        index=index,
        similarity=torch.full(index.shape, 0.75),
        region=zeros if region is None else region,
        batch=zeros,
        center_pos=torch.as_tensor(centers, dtype=torch.float32),
        center_batch=torch.zeros(len(centers), dtype=torch.int64),
    )


@pytest.fixture
def open3d():
    """Open3D where it is installed, loaded as this library does."""
    if importlib.util.find_spec("open3d") is None:
        pytest.skip("open3d is not installed")
    return load_open3d()


@pytest.fixture
def cloud():
    """A cube of 300 points in two halves, left and right, and quarters: of two heads."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(300, 3, generator=generator) - 0.5
    halves = (pos[:, 0] > 0).long()
    quarters = halves + 2 * (pos[:, 1] > 0)
    centers = [[-0.3, -0.3, 0], [0.3, -0.3, 0], [-0.3, 0.3, 0], [0.3, 0.3, 0]]
    found = cluster(torch.stack([halves, quarters], dim=1), pos, centers, halves)
    return Data(pos=pos), found


@pytest.fixture
def picture():
    """A picture of 20 x 30 pixels in four quarters, of one head."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 20, 30, generator=generator)
    row, column = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    index = (2 * (row >= 10) + (column >= 15)).flatten()
    centers = [[-0.25, -0.25], [-0.25, 0.25], [0.25, -0.25], [0.25, 0.25]]
    return image, cluster(index, None, centers, (column >= 15).long().flatten())


@pytest.fixture
def python(tmp_path):
    """Run a program in another process, without display; modules may be absent."""

    def run(code, *, absent=(), environment=None, path=()):
        lines = "".join(f"sys.modules[{name!r}] = None\n" for name in absent)
        code = f"import sys\nsys.path[:0] = {[str(ROOT), *map(str, path)]!r}\n{lines}{code}"
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
