"""Weights that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "weights"
PRETRAINED = {
    ("coc_micro", "fashion_mnist"): (
        "7f722f2d8ae0381ad98e0606b780a7a350c0068210f2ecd916172e1230204c5a"
    ),
    ("point_coc_small", "home_objects"): (
        "f0abe3f50e3002eff844605a2a2f18fae832203d39f6d97257739de0c56e41fe"
    ),
    ("point_coc_tiny", "home_objects"): (
        "c49cb2969ad53635e5645067023a54b9f3da745596a233263b9f8f14a45112fe"
    ),
}
"""SHA-256 of the weights of each network and data set."""


def list_pretrained() -> list[tuple[str, str]]:
    """The networks whose weights come with the package, each with the data it was trained on."""
    return sorted(PRETRAINED)


def pretrained_model(
    name: str,
    data: str | bool,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **options: Any,
) -> Any:
    """A network with the weights that come with the package, in evaluation mode.

    Args:
        name: The network.
        data: What it was trained on; `True`: whatever there is.
        num_classes: Number of classes; of another number than it was trained for, the classifier is
            a new one.
        in_channels: Must be what it was trained with, if it is said.
        options: Further arguments of the network that do not change its weights.

    Raises:
        FileNotFoundError: The weights are missing from this installation.
        ValueError: There are no such weights, they are damaged, or they fit only another network.
    """
    from safetensors.torch import load

    from pointcluster.models.checkpoint import read_files
    from pointcluster.models.factory import create_model

    known = [own for model, own in list_pretrained() if model == name]
    chosen = known[0] if data is True and known else data
    if chosen not in known:
        have = ", ".join(f"{own!r} for {model}" for model, own in list_pretrained())
        raise ValueError(f"no weights of {name} for {data!r} come with the package, only: {have}")
    weights, note = read_files(FOLDER / f"{name}-{chosen}", digest=PRETRAINED[name, str(chosen)])
    config = dict(note["config"])
    if in_channels not in (None, config["in_channels"]):
        raise ValueError(
            f"{name} was trained on {chosen} with in_channels = {config['in_channels']}, "
            f"found {in_channels}"
        )
    model = create_model(**(config | options))
    try:
        model.load_state_dict(load(weights))
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {name} for {chosen!r} do not fit the options "
            f"{', '.join(options)}: {error}"
        ) from error
    if num_classes not in (None, model.num_classes):
        model.reset_classifier(num_classes)
    return model.eval()
