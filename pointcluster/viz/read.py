"""What is looked at, by the names of files or of what comes with packages: inputs and networks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pointcluster.datasets import HomeObjects, read_image, read_points
from pointcluster.datasets.readers.points import SUFFIXES
from pointcluster.models import CoC, create_model, list_pretrained, load_model
from pointcluster.models.factory import FOLDER, network_of_run
from pointcluster.models.files import is_run, read_safely
from pointcluster.models.published import unwrapped
from pointcluster.transforms import TurnUp
from pointcluster.transforms.clouds import reduce_points, to_unit_sphere

PHOTOGRAPHS = {
    "astronaut": ("skimage.data", "astronaut", "scikit-image"),
    "cat": ("skimage.data", "chelsea", "scikit-image"),
    "coffee": ("skimage.data", "coffee", "scikit-image"),
    "rocket": ("skimage.data", "rocket", "scikit-image"),
    "china": ("sklearn.datasets", "load_sample_image", "scikit-learn"),
    "flower": ("sklearn.datasets", "load_sample_image", "scikit-learn"),
}
"""Photographs inside other packages, which need no download: the function that gives each."""
CLOUDS, PICTURES = "point_coc_tiny", "coc_micro"
"""The networks that are used where none is named."""
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def read_input(name: str, *, num_points: int, columns: str | None = None) -> tuple[str, Any]:
    """A title, and a scan as Data or a picture as a PIL image.

    Args:
        name: A file, one of :data:`PHOTOGRAPHS`, or a class of HomeObjects.
        num_points: Most points of a scan.
        columns: What the columns of a table are, as :func:`~pointcluster.datasets.read_points`
            takes it.

    Raises:
        ImportError: A package that reads or carries it is not installed.
        OSError, ValueError: There is no such thing, or the file is damaged.
    """
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file")
    if path.exists() and path.name.lower().endswith(SUFFIXES):
        data = read_points(path, mesh_points=num_points, columns=columns)
        return path.name, reduce_points(data, num_points)
    if path.exists():
        return path.name, read_image(path)
    if name in PHOTOGRAPHS:
        return name, _photograph(name)
    objects = HomeObjects(split="test")
    classes = [kind.replace("_", " ") for kind in objects.classes]
    for item in objects:
        if classes[int(item.y)] == name.replace("_", " "):
            return classes[int(item.y)], Data(pos=item.pos[:num_points], origin=(0.0, 0.0, 0.0))
    raise FileNotFoundError(
        f"{name} is not there, and is none of {', '.join([*PHOTOGRAPHS, *classes])}"
    )


def _photograph(name: str) -> Any:
    from PIL import Image

    module, function, package = PHOTOGRAPHS[name]
    try:
        read = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the photograph {name} needs {package}: pip install {package}"
        ) from error
    values = read(f"{name}.jpg") if function == "load_sample_image" else read()
    return Image.fromarray(np.asarray(values))


def read_network(
    name: str | None, weights: str | None, item: Any = None
) -> tuple[Any, dict[str, Any]]:
    """A network in evaluation mode, and what was noted with it.

    Args:
        name: Of the network, where it is said (``--model``).
        weights: The file of a saved network, of a run or of a published checkpoint, the data of
            weights that come with the package, or ``"none"`` (``--weights``).
        item: What it is to look at: where neither is said, a network whose weights come with the
            package is taken that fits.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The two do not fit together, or the file is damaged.
    """
    shipped = list_pretrained()
    if weights is None:
        name = name or (CLOUDS if isinstance(item, Data) else PICTURES)
        if name not in dict(shipped):
            raise ValueError(
                f"no weights of {name} come with the package: name a file by --weights, or its "
                "random start by --weights none"
            )
        weights = dict(shipped)[name]
    if weights == "none":
        if name is None:
            raise ValueError("--weights none: which network is said by --model")
        torch.manual_seed(0)
        return create_model(name).eval(), {}
    path = Path(weights)
    known = [model for model, data in shipped if data == weights]
    if known and not path.exists():
        if name is not None and name not in known:
            raise ValueError(f"the weights for {weights} are of {', '.join(known)}, not of {name}")
        name = name or (CLOUDS if CLOUDS in known else known[0])
        path = FOLDER / f"{name}-{weights}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    noted: Mapping[str, Any] = {}
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        model, noted = load_model(path)
    elif is_run(content := read_safely(path)):
        model, noted = network_of_run(path, content)
    elif name is None:
        raise ValueError(f"{path}: of which network it is, is said by --model")
    else:
        model = _published(name, path, content)
    if name not in (None, model.config["name"]):
        raise ValueError(f"{path} holds {model.config['name']}, and --model says {name}")
    return model, dict(noted)


def _published(name: str, path: Path, content: Mapping[str, Any]) -> Any:
    try:
        entries = unwrapped(content)
        # The last map tells the number of classes.
        last = [value for key, value in entries.items() if key.startswith(("head.", "classifier."))]
        model: Any = create_model(name, num_classes=len(last[-1]) if last else 0)
        if not hasattr(model, "load_published"):
            raise ValueError(
                f"{name} has no published checkpoints: train it, or take the weights of the package"
            )
        model.load_published(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model.eval()


def prepare(
    model: Any, noted: Mapping[str, Any], name: str, item: Any, *, size: int, up: str
) -> tuple[Tensor | Data, Tensor | Data]:
    """What a network takes of a scan or a picture, and what is drawn, of the same points.

    Args:
        model: The network.
        noted: What was noted with it: the features of clouds, the normalisation of pictures.
        name: What messages call the item.
        item: As :func:`read_input` gives it.
        size: Longer side of a picture, in pixels.
        up: The axis that points up in a scan.

    Raises:
        ValueError: The network takes the other kind, or features that the scan has not.
    """
    called, channels, is_cloud = model.config["name"], model.in_channels, isinstance(item, Data)
    if is_cloud == isinstance(model, CoC):
        kinds = ("scan", "pictures") if is_cloud else ("picture", "clouds")
        raise ValueError(
            f"{name} is a {kinds[0]}, {called} a network of {kinds[1]}: choose another --model"
        )
    if is_cloud:
        cloud = to_unit_sphere(TurnUp(up, "y")(item))
        wanted = (noted.get("preprocessing") or {}).get("features", [])
        if 3 * len(wanted) != channels:
            raise ValueError(
                f"{called} takes {channels} features a point, which its file does not explain"
            )
        for field in wanted:
            if cloud.get(field) is None:
                raise ValueError(f"{name} has no {field}, which the network needs")
        x = torch.cat([cloud[field] for field in wanted], dim=1) if wanted else None
        return Data(pos=cloud.pos, x=x), cloud
    if channels not in (1, 3):
        raise ValueError(f"{called} takes {channels} channels, a picture has 3")
    scale = size / max(item.size)
    picture = item.resize([max(1, round(scale * side)) for side in item.size])
    colours = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255  # [3, H, W]
    grey = torch.from_numpy(np.array(picture.convert("L")))[None].float() / 255
    config = {"mean": [0.0], "std": [1.0]} if channels == 1 else IMAGENET
    config = config | (noted.get("data_config") or {})
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (((grey if channels == 1 else colours) - mean) / std)[None], colours[None]
