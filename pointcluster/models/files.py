"""Networks on disk: what this project writes and reads, and files of others, read without a risk.

A network is two files, weights as safetensors and what they are as JSON; a training run's
checkpoint is one, by torch. What they hold is read here, networks are made of it in `factory.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointcluster.files import write_whole
from pointcluster.models.base import Network


class Saved(NamedTuple):
    """What a file holds of a network."""

    config: dict[str, Any]
    """What :func:`create_model` makes it from."""
    weights: dict[str, Any]
    """By the names that they have in it."""
    noted: dict[str, Any]
    """What else was written beside it: classes, data set, preprocessing, accuracy."""
    prefix: str = ""
    """What stands before the weights' names in the file."""


def save_model(
    path: str | os.PathLike[str], model: Network, metadata: dict[str, Any] | None = None
) -> Path:
    """Write a network to `path` with `.safetensors` and, beside it, `.json`.

    Each file appears whole or not at all. The weights keep their dtype.

    Args:
        path: Where to, with one of the two suffixes or none.
        model: A network made by :func:`create_model`.
        metadata: What else to keep, as plain JSON: data set, measured accuracy. What
            `python -m pointcluster.predict` goes by: `"classes"`, their names in order; and
            `"preprocessing"`, of what the network was trained on: `"num_points"` a cloud,
            `"sampled"` (points of the scans that these are a part of), `"normalize"` (whether
            scans lie in the unit sphere, or `"cube"`: in that from -1 to 1), `"up"` (`"y"`, `"z"`,
            `"-x"`, ...), and `"features"`, what `x` holds in this order, of `"normal"` and
            `"color"`.

    Returns:
        The path of the weights.

    Raises:
        OSError: The folder cannot be written.
        TypeError: `metadata` holds what JSON cannot.
    """
    from safetensors.torch import save

    path, described = two_files(path)
    weights = save({key: value.contiguous().cpu() for key, value in model.state_dict().items()})
    note = {
        "format": "pointcluster",
        "config": model.config,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "metadata": metadata or {},
    }
    text = json.dumps(note, indent=1)
    write_whole(path, weights)
    write_whole(described, text + "\n")
    return path


def read_model(path: str | os.PathLike[str], *, digest: str | None = None) -> Saved:
    """Read the two files that :func:`save_model` wrote.

    Args:
        path: Path of either file, or without suffix.
        digest: The SHA-256 that the weights must have, beside the one of the description.

    Raises:
        FileNotFoundError: One of the two files is not there.
        ValueError: A file is damaged, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path, described = two_files(path)
    for file in (path, described):
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is not there: a network is two files, .safetensors and .json"
            )
    content = path.read_bytes()
    try:
        note = json.loads(described.read_text())
        config, expected, metadata = dict(note["config"]), note["sha256"], note["metadata"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{described} does not describe a network: {error!r}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged or of another run: {described.name} has another SHA-256"
        )
    if digest not in (None, found):
        raise ValueError(f"{path} is damaged: its SHA-256 is {found}, expected {digest}")
    try:
        weights = load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} does not hold a network of this library: {error}") from error
    return Saved(config, weights, metadata)


def read_safely(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a file that `torch.save` wrote, without running anything that it holds.

    Tensors, plain values and the options of a training program (`argparse.Namespace`) are read;
    nothing else is.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It names anything else, which could run code, or is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # what torch makes of a foreign file is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way
        if isinstance(error, OSError) and error.filename:  # it cannot be opened
            raise
        text = str(error)
        if found := re.search(r"GLOBAL ([\w.]+)", text):
            raise ValueError(
                f"{path} is refused: to read it, {found[1]} would have to be called, and such a "
                "file can run any code. Only tensors, plain values and argparse.Namespace are read"
            ) from error
        if isinstance(error, pickle.UnpicklingError) and "Unsupported operand" in text:
            reason = "it is a pickle that torch.save() did not write, and could run any code"
        elif "TorchScript" in text:
            reason = "it is a TorchScript program, not a checkpoint"
        else:
            reason = "it is truncated, damaged, or no file that torch.save() wrote"
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    return content


def is_run(content: Mapping[str, Any]) -> bool:
    """Whether what a checkpoint file holds was written by a training run of this library."""
    return "network" in content


def saved_in_run(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Saved:
    """What a run's checkpoint holds of its network; of an average of the weights, that.

    Args:
        path: The file, as messages name it.
        content: What :func:`read_safely` read of it.

    Raises:
        ValueError: It is of no run of this library, or damaged.
    """
    noted, state = content.get("network"), content.get("state_dict")
    config = noted.get("config") if isinstance(noted, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise ValueError(
            f"{path} is no checkpoint of a run of this library: its entry 'network' is "
            f"{short(noted)}, expected a dictionary with the network's config and name"
        )
    assert isinstance(noted, Mapping)
    prepared = noted.get("preprocessing")
    if prepared is not None and not isinstance(prepared, Mapping):
        raise ValueError(f"{path}: its 'preprocessing' is {short(prepared)}, expected a dictionary")
    if not isinstance(state, Mapping):
        raise ValueError(f"{path}: its entry 'state_dict' is {short(state)}, expected the weights")
    state = {str(key): value for key, value in state.items()}
    averaged = any(key.startswith("average.module.") for key in state)
    prefix = "average.module." if averaged else "model."
    weights = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    return Saved(dict(config), weights, dict(noted), prefix)


def what_differs(model: Network, saved: Saved) -> str:
    """In what saved weights are not those of a network, by names and shapes; empty: in nothing."""
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    found = {
        key: list(value.shape) if isinstance(value, Tensor) else None
        for key, value in saved.weights.items()
    }
    wrong = sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key))
    if not wrong:
        return ""
    key = wrong[0]
    return (
        f"{len(wrong)} entries differ, first {saved.prefix}{key}: {found.get(key)} in the file, "
        f"{own.get(key)} expected"
    )


def two_files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The two files of a network; what looks like another suffix belongs to the name."""
    path = Path(path)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def short(value: Any) -> str:
    """A value as it is named in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
