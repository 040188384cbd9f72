"""A trained network of pictures, from whatever file it is in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from pointcluster.models import CoC, load_model
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
        RunError: The file is damaged, holds code, is of another network or of one of points, or
            what it notes of classes and pictures does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.suffix in (".safetensors", ".json"):
        try:
            saved, metadata = load_model(path, name=name)
        except ValueError as error:
            raise RunError(error) from error
        if not isinstance(saved, CoC):
            raise RunError(
                f"{path} holds {saved.config['name']!r}, a network of points, expected one of "
                "pictures"
            )
        if not isinstance(metadata, Mapping):
            raise RunError(f"{path}: metadata is {_short(metadata)}, expected a dictionary")
        taken = metadata.get("data_config") or data_config(saved)
        return _checked(path, TrainedNetwork(saved, metadata.get("classes"), taken))
    content: Any = _read(path)
    network = content.get("network")
    if network is None:
        return _published(path, content, build, name)
    config = network.get("config") if isinstance(network, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise RunError(
            f"{path} is no checkpoint of a run of this library: its entry 'network' is "
            f"{_short(network)}, expected a dictionary with the network's config and name"
        )
    if name not in (None, config["name"]):
        raise RunError(f"{path} holds {config['name']!r}, expected {name!r}")
    if missing := [key for key in ("classes", "data_config") if key not in network]:
        raise RunError(
            f"{path} holds {config['name']!r} without {' and '.join(missing)}: expected a "
            "checkpoint of a run on pictures"
        )
    try:
        model = build(**config)
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} holds a network that cannot be built: {error}") from error
    _load(path, model, content.get("state_dict"))
    found = TrainedNetwork(model.eval(), network["classes"], network["data_config"])
    return _checked(path, found)


def _load(path: Path, model: nn.Module, state: Any) -> None:
    """Give a network the weights of a run, of which there must be exactly its own."""
    if not isinstance(state, Mapping):
        raise RunError(f"{path}: its entry 'state_dict' is {_short(state)}, expected the weights")
    averaged = any(str(key).startswith("average.module.") for key in state)
    prefix = "average.module." if averaged else "model."
    weights = {
        str(key).removeprefix(prefix): value
        for key, value in state.items()
        if str(key).startswith(prefix)
    }
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    found = {k: list(v.shape) if isinstance(v, Tensor) else None for k, v in weights.items()}
    wrong = sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise RunError(
            f"{path} holds weights of another network than it names: {len(wrong)} entries differ, "
            f"first {prefix}{key}: {found.get(key)} in the file, {own.get(key)} expected"
        )
    model.load_state_dict(weights)


def _checked(path: Path, found: TrainedNetwork) -> TrainedNetwork:
    """What is noted beside the weights must fit the network."""
    config: Any = found.model.config
    number, classes, taken = config.get("num_classes"), found.classes, found.data_config
    if config.get("features_only") or not number:
        raise RunError(f"{path} holds a network without a classifier, expected one with classes")
    if classes is not None:
        named = isinstance(classes, list) and all(isinstance(each, str) for each in classes)
        if not named or len(classes) != number:
            count = f"{len(classes):,} names" if named else _short(classes)
            raise RunError(
                f"{path} names other classes than the network knows: {count} in the file, expected "
                f"{number:,} names"
            )
    needed = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}
    missing = sorted(needed - taken.keys()) if isinstance(taken, Mapping) else sorted(needed)
    if missing:
        raise RunError(f"{path}: data_config lacks {', '.join(missing)}: found {_short(taken)}")
    size = taken["input_size"]
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != config.get("in_channels", 3):
        raise RunError(
            f"{path}: the input_size of data_config is {_short(size)}, expected "
            f"[{config.get('in_channels', 3)}, height, width]"
        )
    return found


def _short(value: Any) -> str:
    """A value as it is named in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


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
