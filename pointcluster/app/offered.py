"""The networks that the page offers to everyone."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pointcluster.app.checkpoint import read_checkpoint
from pointcluster.app.network import Network
from pointcluster.models import list_pretrained
from pointcluster.models.factory import FOLDER


def offered_networks(checkpoints: Sequence[str | os.PathLike[str]] = ()) -> dict[str, Network]:
    """The networks by their titles, those of the user first, then clouds before pictures.

    Args:
        checkpoints: Files that :func:`read_checkpoint` reads.

    Raises:
        ImportError, OSError, ValueError: A checkpoint cannot be read; or there is no network.
    """
    found: dict[str, Network] = {}
    for path in checkpoints:
        network = read_checkpoint(path)
        if network.title in found:  # model.safetensors of another run
            network = read_checkpoint(path, title=str(path))
        found[network.title] = network
    shipped = []
    for name, data in list_pretrained():
        path = FOLDER / f"{name}-{data}.safetensors"
        if path.is_file() and path.with_suffix(".json").is_file():
            shipped.append(read_checkpoint(path, title=f"{name}, {data.replace('_', ' ')}"))
    for network in sorted(shipped, key=lambda each: each.kind == "picture"):
        found[network.title] = network
    if not found:
        raise ValueError(
            "no weights came with this installation: name a trained network with --checkpoint"
        )
    return found
