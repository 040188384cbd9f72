"""Trained networks: from any file that this library can read safely, and those on offer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pointcluster._optional import installed_by
from pointcluster.app.network import CloudNetwork, Network, PictureNetwork, SceneNetwork
from pointcluster.models import (
    CoC,
    PointCoC,
    PointCoCSeg,
    PointMLPCoC,
    create_model,
    list_models,
    list_pretrained,
    load_model,
    save_model,
)
from pointcluster.models.convert import convert
from pointcluster.models.factory import FOLDER, network_of_run
from pointcluster.models.files import is_run, read_safely
from pointcluster.models.published import unwrapped
from pointcluster.predict import Predictor
from pointcluster.segment import Segmenter

SAVED = (".safetensors", ".json")


def read_checkpoint(path: str | os.PathLike[str], *, title: str | None = None) -> Network:
    """Read a network of pictures, clouds or scenes, with its classes and preprocessing.

    Taken are networks that :func:`pointcluster.models.save_model` wrote, checkpoints of this
    library's training runs, and published checkpoints (`.pth`, `.pth.tar`), whose file must be
    named after the network where several have the same entries. Nothing in a file is ever executed.

    Args:
        path: The file; of a `.safetensors` the `.json` must lie beside it.
        title: What the page calls it; the file's name, if not said.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, holds code, is no network of this library or has no classifier.
    """
    path = Path(path)
    if path.suffix.lower() in SAVED:
        return _saved(path, title or path.stem)
    content = read_safely(path)
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        target = Path(folder) / "model.safetensors"
        _save_again(path, content, target)
        try:
            return _saved(target, title or path.name)
        except ValueError as error:
            raise ValueError(str(error).replace(str(target), str(path))) from error


def open_checkpoint(paths: Sequence[str | os.PathLike[str]]) -> Network:
    """A user's own network from the one or two files that were uploaded; they are deleted.

    Args:
        paths: A `.safetensors` and its `.json`, which may come from two folders and in any order;
            or one checkpoint.

    Raises:
        ImportError, OSError, ValueError: They are no network of this library.
    """
    files = [Path(path) for path in paths]
    try:
        weights = [path for path in files if path.suffix.lower() != ".json"]
        notes = [path for path in files if path.suffix.lower() == ".json"]
        if len(weights) != 1 or len(notes) > 1:
            raise ValueError("choose one network: a .safetensors with its .json, or a .pth.tar")
        path = weights[0]
        if path.suffix.lower() in SAVED and not notes:
            raise ValueError(f"{path.name} needs its .json: choose both files together")
        for note in notes:  # the reader expects them side by side, under one name
            files.append(note.rename(path.with_suffix(".json")))
        try:
            return read_checkpoint(path, title=f"yours: {path.name}")
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path.parent}{os.sep}", "")) from error
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def offered_networks(checkpoints: Sequence[str | os.PathLike[str]] = ()) -> dict[str, Network]:
    """The networks by their titles: those of the user, then of clouds, of pictures, of scenes.

    Args:
        checkpoints: Files that :func:`read_checkpoint` reads.

    Raises:
        ImportError, OSError, ValueError: A checkpoint cannot be read; or there is no network.
    """
    offered: dict[str, Network] = {}
    for path in checkpoints:
        network = read_checkpoint(path)
        if network.title in offered:  # model.safetensors of another run
            network = read_checkpoint(path, title=str(path))
        offered[network.title] = network
    shipped = []
    for name, data in list_pretrained(task=None):
        path = FOLDER / f"{name}-{data}.safetensors"
        if path.is_file() and path.with_suffix(".json").is_file():
            shipped.append(read_checkpoint(path, title=f"{name}, {data.replace('_', ' ')}"))
    kinds = ("scan", "picture", "scene")
    for network in sorted(shipped, key=lambda network: kinds.index(network.kind)):
        offered[network.title] = network
    if not offered:
        raise ValueError(
            "no weights came with this installation: name a trained network with --checkpoint"
        )
    return offered


def _saved(path: Path, title: str) -> Network:
    model, metadata = load_model(path)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise ValueError(f"{path} holds weights that are NaN or infinite")
    about = _about(model, metadata)
    if isinstance(model, PointCoCSeg):
        return SceneNetwork(title, Segmenter.load(path), about)
    if isinstance(model, PointCoC | PointMLPCoC):
        return CloudNetwork(title, Predictor(path), about)
    if not isinstance(model, CoC):
        raise ValueError(
            f"{path} holds {model.config['name']!r}, which this page cannot show: it takes "
            "networks that classify pictures, scans, or the points of scans"
        )
    with installed_by("app"):
        from pointcluster.training import read_network

        read = read_network(path, build=create_model)
    classes = read.classes or [f"class {index}" for index in range(model.num_classes)]
    return PictureNetwork(title, read.model, classes, about, read.data_config)


def _save_again(path: Path, content: Mapping[str, Any], target: Path) -> None:
    """Write what a run or somebody else wrote as :func:`save_model` does."""
    entries = {} if is_run(content) else unwrapped(content)
    if is_run(content):
        saved = network_of_run(path, content)
        kept = ("classes", "preprocessing", "data_config")
        try:
            noted = {key: value for key, value in saved.noted.items() if key in kept}
            save_model(target, saved.model, noted)
        except TypeError as error:
            raise ValueError(f"{path} notes what is no plain text or number") from error
    elif any(key.startswith("embedding.net.") for key in entries):  # the paper's of clouds
        maps = [value for key, value in entries.items() if key.startswith("classifier.")]
        model: Any = create_model("pointmlp_coc", num_classes=len(maps[-1]) if maps else 0)
        try:
            model.load_published(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        save_model(target, model)
    else:
        # Several of pictures have the same entries: the file's name tells them apart.
        named = path.name.lower().replace("-", "_")
        fitting = [name for name in list_models("coc_*") if name in named]
        try:
            convert(path, target, name=max(fitting, key=len, default=None))
        except ValueError as error:
            hint = "name the file after it, as coc_tiny.pth.tar"
            text = str(error).replace("say which it is with --model", hint)
            raise ValueError(text) from error


def _about(model: Any, metadata: Any) -> str:
    """What is noted of the training, in a few words."""
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    words = [model.config["name"], f"{millions:.2f}M parameters", f"{model.num_classes:,} classes"]
    result = metadata.get("result") if isinstance(metadata, dict) else None
    noted = result if isinstance(result, dict) else {}
    if isinstance(noted.get("data"), str):
        words.append(f"trained on {noted['data']}")
    if isinstance(noted.get("test_accuracy"), float):
        words.append(f"{noted['test_accuracy']:.1%} of its test right")
    return " · ".join(words)
