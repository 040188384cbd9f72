"""Networks by their names."""

from __future__ import annotations

from typing import Any

from pointcluster.models.point_coc import SIZES, PointCoC


def list_models() -> list[str]:
    """The names that :func:`create_model` takes."""
    return sorted(SIZES)


def create_model(
    name: str, *, num_classes: int = 40, in_channels: int = 0, **options: Any
) -> PointCoC:
    """Build a network.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the features that come with the positions.
        options: Further arguments of the network's class, instead of its size's own.

    Raises:
        ValueError: There is no network of that name.
        TypeError: An option is unknown to the network.
    """
    if name not in SIZES:
        raise ValueError(f"there is no network {name!r}: choose one of {', '.join(list_models())}")
    model = PointCoC(num_classes, in_channels, **(SIZES[name]._asdict() | options))
    model.config = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return model
