"""A trained network of pictures, from whatever file it is in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from pointcluster.models import load_model
from pointcluster.models.convert import read_published
from pointcluster.models.published import unwrapped
from pointcluster.training.image_transforms import data_config
from pointcluster.training.run_folder import RunError


class TrainedNetwork(NamedTuple):
    """A network in evaluation mode, and what belongs to it.

    ``classes`` are the names that it was trained with, ``None`` where the file names none;
    ``data_config`` says what it takes.
    """

    model: nn.Module
    classes: list[str] | None
    data_config: dict[str, Any]


def read_network(
    path: str | os.PathLike[str], *, build: Callable[..., nn.Module], name: str | None = None
) -> TrainedNetwork:
    """Read a network that this library saved, a run's checkpoint, or a published checkpoint.

    Of a run with an average of the weights, the average is read.

    Args:
        path: ``model.safetensors`` (or ``.json``), ``checkpoints/last.ckpt``, or a published file.
        build: ``build(**config)`` makes a network; :func:`pointcluster.models.create_model` does.
        name: The network that is expected; a published file needs it, as it does not say.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The file is damaged, holds code, or is of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.suffix in (".safetensors", ".json"):
        try:
            saved, metadata = load_model(path, name=name)
        except ValueError as error:
            raise RunError(error) from error
        taken = metadata.get("data_config") or data_config(saved)
        return TrainedNetwork(saved, metadata.get("classes"), taken)
    content: Any = _read(path)
    network = content.get("network")
    if network is None:
        return _published(path, content, build, name)
    config = network["config"]
    if name not in (None, config["name"]):
        raise RunError(f"{path} holds {config['name']!r}, expected {name!r}")
    model = build(**config)
    state = content["state_dict"]
    averaged = any(key.startswith("average.module.") for key in state)
    prefix = "average.module." if averaged else "model."
    model.load_state_dict(
        {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    )
    return TrainedNetwork(model.eval(), network["classes"], network["data_config"])


def _read(path: Path) -> Any:
    try:
        return read_published(path)
    except ValueError as error:
        raise RunError(error) from error


def _published(
    path: Path, content: Any, build: Callable[..., nn.Module], name: str | None
) -> TrainedNetwork:
    if name is None:
        raise RunError(f"{path} does not say which network it is of: name it with --model")
    try:
        head = unwrapped(content).get("head.weight")
        model: Any = build(name=name, num_classes=1000 if head is None else len(head))
        model.load_published(content)
    except (AttributeError, TypeError, ValueError) as error:
        raise RunError(f"{path} is no published checkpoint of {name!r}: {error}") from error
    return TrainedNetwork(model.eval(), None, data_config(model))
