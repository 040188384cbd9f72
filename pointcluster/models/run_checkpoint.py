"""The network inside a training run's checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from pointcluster.models.checkpoint import what_differs
from pointcluster.models.factory import create_model


class RunNetwork(NamedTuple):
    """A network in evaluation mode, and what its run noted."""

    model: Any
    noted: dict[str, Any]
    """`config`, `classes`, and what the run knew besides: `data_config`, `preprocessing`."""


def is_run(content: Mapping[str, Any]) -> bool:
    """Whether what a checkpoint file holds was written by a training run of this library."""
    return "network" in content


def network_of_run(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    *,
    build: Callable[..., nn.Module] = create_model,
    name: str | None = None,
    needed: Callable[[Mapping[str, Any]], None] | None = None,
) -> RunNetwork:
    """The network of a run's checkpoint; of a run that averages the weights, the average.

    Args:
        path: The file, as messages name it.
        content: What it holds, as :func:`pointcluster.models.convert.read_published` reads it.
        build: `build(**config)` makes a network.
        name: The network that is expected, if only one will do.
        needed: Is called with what the run noted, before anything is built; raises a `ValueError`
            where that will not do.

    Raises:
        ValueError: It is of no run of this library, of another network, or damaged.
    """
    noted = content.get("network")
    config = noted.get("config") if isinstance(noted, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ValueError(
            f"{path} is no checkpoint of a run of this library: its entry 'network' is "
            f"{short(noted)}, expected a dictionary with the network's config and name"
        )
    assert isinstance(noted, Mapping)
    if name not in (None, config["name"]):
        raise ValueError(f"{path} holds {config['name']!r}, expected {name!r}")
    prepared = noted.get("preprocessing")
    if prepared is not None and not isinstance(prepared, Mapping):
        raise ValueError(f"{path}: its 'preprocessing' is {short(prepared)}, expected a dictionary")
    if needed is not None:
        needed(noted)
    try:
        model = build(**config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a network that cannot be built: {error}") from error
    _load(path, model, content.get("state_dict"))
    return RunNetwork(model.eval(), dict(noted))


def short(value: Any) -> str:
    """A value as it is named in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _load(path: str | os.PathLike[str], model: nn.Module, state: Any) -> None:
    """Give a network the weights of a run, of which there must be exactly its own."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{path}: its entry 'state_dict' is {short(state)}, expected the weights")
    averaged = any(str(key).startswith("average.module.") for key in state)
    prefix = "average.module." if averaged else "model."
    weights = {
        str(key).removeprefix(prefix): value
        for key, value in state.items()
        if str(key).startswith(prefix)
    }
    if wrong := what_differs(model, weights, prefix):
        raise ValueError(f"{path} holds weights of another network than it names: {wrong}")
    model.load_state_dict(weights)
