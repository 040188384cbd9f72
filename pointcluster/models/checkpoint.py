"""Networks on disk: weights as safetensors, what they are as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pointcluster.files import write_whole
from pointcluster.models.coc import CoC
from pointcluster.models.factory import create_model
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC


def save_model(
    path: str | os.PathLike[str],
    model: PointCoC | PointMLPCoC | CoC,
    metadata: dict[str, Any] | None = None,
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

    path, described = _files(path)
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


def load_model(
    path: str | os.PathLike[str], *, name: str | None = None
) -> tuple[PointCoC | PointMLPCoC | CoC, dict[str, Any]]:
    """Read a network that :func:`save_model` wrote, in evaluation mode, and its metadata.

    Args:
        path: Path of either file, or without suffix.
        name: The network that is expected, if only one will do.

    Raises:
        FileNotFoundError: One of the two files is not there.
        ValueError: A file is damaged, the two do not belong together, or they hold another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    files = _files(path)
    weights, note = read_files(path)
    config, metadata = note["config"], note["metadata"]
    if name is not None and config.get("name") != name:
        raise ValueError(f"{files[0]} holds {config.get('name')!r}, expected {name!r}")
    try:
        model = create_model(**config)
        state = load(weights)
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{files[0]} does not hold a network of this library: {error}") from error
    if wrong := what_differs(model, state):
        raise ValueError(
            f"{files[0]} holds weights of another network than {config['name']!r}: {wrong}"
        )
    model.to(next(value.dtype for value in state.values() if value.is_floating_point()))
    model.load_state_dict(state)
    return model.eval(), metadata


def what_differs(model: nn.Module, weights: Mapping[str, Any], prefix: str = "") -> str:
    """In what weights are not those of a network, by names and shapes; empty where they are.

    Args:
        model: The network.
        weights: By the names that they have in it; what is no tensor is none.
        prefix: What stands before the names in the file.
    """
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    found = {k: list(v.shape) if isinstance(v, Tensor) else None for k, v in weights.items()}
    wrong = sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key))
    if not wrong:
        return ""
    key = wrong[0]
    return (
        f"{len(wrong)} entries differ, first {prefix}{key}: {found.get(key)} in the file, "
        f"{own.get(key)} expected"
    )


def read_files(
    path: str | os.PathLike[str], *, digest: str | None = None
) -> tuple[bytes, dict[str, Any]]:
    """The two files of a network: its weights, still packed, and what describes them.

    Args:
        path: Path of either file, or without suffix.
        digest: The SHA-256 that the weights must have, beside the one of the description.

    Raises:
        FileNotFoundError: One of the two files is not there.
        ValueError: A file is damaged, or the two do not belong together.
    """
    files = _files(path)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is not there: a network is two files, .safetensors and .json"
            )
    weights = files[0].read_bytes()
    try:
        note = json.loads(files[1].read_text())
        note = {key: note[key] for key in ("config", "sha256", "metadata")}
        note["config"] = dict(note["config"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{files[1]} does not describe a network: {error!r}") from error
    found = hashlib.sha256(weights).hexdigest()
    if found != note["sha256"]:
        raise ValueError(
            f"{files[0]} is damaged or of another run: {files[1].name} has another SHA-256"
        )
    if digest not in (None, found):
        raise ValueError(f"{files[0]} is damaged: its SHA-256 is {found}, expected {digest}")
    return weights, note


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The two files of a network; what looks like another suffix belongs to the name."""
    path = Path(path)
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")
