"""A trained network of pictures, from whatever file it is in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from pointcluster.models import CoC, load_model
from pointcluster.models.factory import network_of_run
from pointcluster.models.files import is_run, read_safely, short
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
            raise RunError(f"{path}: metadata is {short(metadata)}, expected a dictionary")
        taken = metadata.get("data_config") or data_config(saved)
        return _checked(path, TrainedNetwork(saved, metadata.get("classes"), taken))
    content: Any = _read(path)
    if not is_run(content):
        return _published(path, content, build, name)

    def of_pictures(noted: Mapping[str, Any]) -> None:
        if missing := [key for key in ("classes", "data_config") if key not in noted]:
            raise ValueError(
                f"{path} holds {noted['config']['name']!r} without {' and '.join(missing)}: "
                "expected a checkpoint of a run on pictures"
            )

    try:
        model, noted = network_of_run(path, content, build=build, name=name, needed=of_pictures)
    except ValueError as error:
        raise RunError(error) from error
    return _checked(path, TrainedNetwork(model, noted["classes"], noted["data_config"]))


def _checked(path: Path, found: TrainedNetwork) -> TrainedNetwork:
    """What is noted beside the weights must fit the network."""
    config: Any = found.model.config
    number, classes, taken = config.get("num_classes"), found.classes, found.data_config
    if config.get("features_only") or not number:
        raise RunError(f"{path} holds a network without a classifier, expected one with classes")
    if classes is not None:
        named = isinstance(classes, list) and all(isinstance(each, str) for each in classes)
        if not named or len(classes) != number:
            count = f"{len(classes):,} names" if named else short(classes)
            raise RunError(
                f"{path} names other classes than the network knows: {count} in the file, expected "
                f"{number:,} names"
            )
    needed = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}
    missing = sorted(needed - taken.keys()) if isinstance(taken, Mapping) else sorted(needed)
    if missing:
        raise RunError(f"{path}: data_config lacks {', '.join(missing)}: found {short(taken)}")
    size = taken["input_size"]
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != config.get("in_channels", 3):
        raise RunError(
            f"{path}: the input_size of data_config is {short(size)}, expected "
            f"[{config.get('in_channels', 3)}, height, width]"
        )
    return found


def _read(path: Path) -> Any:
    try:
        return read_safely(path)
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
