"""What the benchmarks of networks of clouds time: a pass and a training step on real objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from measure import peak_memory
from torch import nn
from torch_geometric.data import Batch, Data

from pointcluster.datasets import HomeObjects


def clouds(count: int, points: int) -> Batch:
    """A batch of real objects with their labels."""
    items = HomeObjects(split="train")
    step = max(1, len(items) // count)
    chosen = [items[(i * step) % len(items)] for i in range(count)]
    return Batch.from_data_list([Data(pos=item.pos[:points], y=item.y) for item in chosen])


def calls_of(model: nn.Module, batch: Batch) -> dict[str, Callable[[], Any]]:
    """What is timed for one network; a peer's geometry is part of its forward pass."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    given = (model.hierarchy(batch),) if hasattr(model, "hierarchy") else ()

    def infer(*geometry: Any) -> None:
        model.eval()
        with torch.no_grad():
            model(batch, *geometry)

    def train(*geometry: Any) -> None:
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch, *geometry), batch.y)
        loss = loss + getattr(model, "penalty", 0.0)
        loss.backward()
        optimizer.step()

    calls: dict[str, Callable[[], Any]] = {"inference": infer, "training": train}
    if given:
        calls["inference, geometry given"] = lambda: infer(*given)
        calls["training, geometry given"] = lambda: train(*given)
        calls["geometry"] = lambda: model.hierarchy(batch)
    return calls


def step_memory(
    create: Callable[[str, int], nn.Module], name: str, batch_size: int, points: int
) -> int:
    """Bytes that a training step adds to what network, batch and optimiser hold already."""
    batch = clouds(batch_size, points)
    train = calls_of(create(name, len(HomeObjects(split="train").classes)), batch)["training"]
    train()  # the optimiser's moments, and libraries that load when they are first needed
    return peak_memory(train)
