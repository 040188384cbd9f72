"""Who searches neighbours: the loader or the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_geometric.data import Batch, Data

from pointcluster.transforms import PrecomputeHierarchy


def searching_collate(
    model: Any, geometry: str, workers: int
) -> Callable[[list[Data]], Batch] | None:
    """What makes a batch of clouds, with the network's geometry where the loader searches.

    Args:
        model: The network, whose ``plans`` say what to search.
        geometry: ``"loader"``, ``"step"``, or ``"auto"``: the loader where it has workers.
        workers: Processes of the loader.

    Returns:
        For the loaders' ``collate``: ``None`` where the network searches, in the step.

    Raises:
        ValueError: ``geometry`` is unknown.
    """
    if geometry not in ("auto", "loader", "step"):
        raise ValueError(f"geometry is {geometry!r}, expected 'auto', 'loader' or 'step'")
    if geometry == "loader" or (geometry == "auto" and workers > 0):
        return PrecomputeHierarchy(model.plans).collate
    return None
