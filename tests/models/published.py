"""What the published implementation answers: recorded figures, and the weights they belong to."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import torch

DATA = Path(__file__).parent / "data"
ENTRIES = json.loads((DATA / "published_entries.json").read_text())
"""Names and shapes of the published checkpoints' entries."""


def entry(key, shape):
    """A deterministic value for the entry of that name."""
    seed = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    noise = torch.randn(tuple(shape), generator=seed, dtype=torch.float64)
    if key.endswith("running_var"):
        return 1 + noise.abs() / 5
    if "layer_scale" in key:
        return 0.5 + noise / 10
    if key.endswith(("sim_alpha", "affine_alpha")):
        return 1 + noise / 10
    if key.endswith(("sim_beta", "affine_beta", ".bias", ".running_mean")):
        return noise / 10
    return noise / math.sqrt(noise[0].numel()) if noise.dim() > 1 else 1 + noise / 10


def checkpoint(name):
    return {key: entry(key, shape) for key, shape in ENTRIES[name].items()}


def pictures(height, width, batch=2):
    seed = torch.Generator().manual_seed(height * 10000 + width)
    return torch.randn(batch, 3, height, width, generator=seed, dtype=torch.float64)


def clouds(points, batch=2):
    seed = torch.Generator().manual_seed(points)
    pos = torch.randn(batch, points, 3, generator=seed, dtype=torch.float64)
    return pos / pos.norm(dim=-1).amax(1)[:, None, None]
