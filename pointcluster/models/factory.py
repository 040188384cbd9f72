"""Networks by their names, and from files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from pointcluster.models import coc, point_coc, point_coc_seg, pointmlp_coc
from pointcluster.models.base import Network
from pointcluster.models.coc import CoC
from pointcluster.models.files import read_model, saved_in_run, two_files, what_differs
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.point_coc_seg import PointCoCSeg
from pointcluster.models.pointmlp_coc import PointMLPCoC

NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    name: (kind, size if isinstance(size, dict) else size._asdict())
    for kind, sizes in (
        (CoC, coc.SIZES),
        (PointCoC, point_coc.SIZES),
        (PointMLPCoC, pointmlp_coc.SIZES),
        (PointCoCSeg, point_coc_seg.SIZES),
    )
    for name, size in sizes.items()
}
"""The class of each network, and its size."""

_PYRAMIDS = [name for name, size in coc.SIZES.items() if size.strides is None]
TASKS = {
    "classification": tuple(name for name in NETWORKS if name not in point_coc_seg.SIZES),
    "segmentation": tuple(point_coc_seg.SIZES),
    "segmentation of pictures": tuple(f"semantic_fpn_{name}" for name in _PYRAMIDS),
    "detection": tuple(f"mask_rcnn_{name}" for name in _PYRAMIDS),
}
"""The networks by what they answer with."""

FOLDER = Path(__file__).resolve().parent / "weights"
PRETRAINED = {
    ("coc_micro", "fashion_mnist"): (
        "7f722f2d8ae0381ad98e0606b780a7a350c0068210f2ecd916172e1230204c5a"
    ),
    ("point_coc_small", "home_objects"): (
        "f0abe3f50e3002eff844605a2a2f18fae832203d39f6d97257739de0c56e41fe"
    ),
    ("point_coc_small_seg", "lidar_hd"): (
        "d6a3927ed2ad84a86a3f24aae6fc5fd1f54cf1b9ae3a5474980aea92922b442d"
    ),
    ("point_coc_tiny", "home_objects"): (
        "c49cb2969ad53635e5645067023a54b9f3da745596a233263b9f8f14a45112fe"
    ),
}
"""SHA-256 of the weights of each network and data set that come with the package."""


def list_models(pattern: str = "*", *, task: str | None = "classification") -> list[str]:
    """Names that :func:`create_model` takes.

    Args:
        pattern: Only those that it fits, such as `"coc_*"`.
        task: `"classification"`; `"segmentation"`, by networks that answer with a class of every
            point of a scan; `"segmentation of pictures"` or `"detection"`, by the paper's networks
            on each of its pyramids; or `None` for all.

    Raises:
        ValueError: There is no such task.
    """
    return sorted(name for name in _of_task(task) if fnmatchcase(name, pattern))


def list_pretrained(*, task: str | None = "classification") -> list[tuple[str, str]]:
    """The networks whose weights come with the package, each with the data it was trained on.

    Args:
        task: As :func:`list_models` takes it.

    Raises:
        ValueError: There is no such task.
    """
    names = _of_task(task)
    return sorted((name, data) for name, data in PRETRAINED if name in names)


def _of_task(task: str | None) -> list[str]:
    """The names of a task's networks."""
    if task not in (None, *TASKS):
        raise ValueError(f"task must be one of {', '.join(TASKS)}, or None, found {task!r}")
    return [name for kind, names in TASKS.items() if task in (None, kind) for name in names]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    pretrained: str | bool | None = None,
    **options: Any,
) -> Network:
    """Build a network.

    Args:
        name: One of :func:`list_models`, of any task.
        num_classes: Number of classes; 0 leaves the classifier out. 1,000 for pictures, 40 for
            clouds, 50 for their points, 150 for segmentation of pictures and 81 for detection (the
            background included), if not said; with weights, as many as they know.
        in_channels: Channels of the pictures (3, if not said), or of the features that come with
            the positions of clouds (none).
        pretrained: Weights that come with the package, by the data they were trained on, such as
            `"home_objects"`; `True` takes what there is. The network is in evaluation mode then,
            and its classifier a new one where `num_classes` is not that of the weights.
        options: Further arguments of the network's class, instead of its size's own; of
            segmentation and detection, those of :func:`~pointcluster.models.dense.semantic_fpn` and
            :func:`~pointcluster.models.dense.mask_rcnn`.

    Raises:
        FileNotFoundError: The weights are missing from this installation.
        ValueError: There is no network, or there are no weights, of that name; or they are damaged
            or do not fit the options.
        TypeError: An option is unknown to the network.
    """
    if pretrained:
        return _pretrained(name, pretrained, num_classes, in_channels, options)
    if name not in list_models(task=None):
        known = ", ".join(list_models(task=None))
        raise ValueError(f"there is no network {name!r}: choose one of {known}")
    channels = {"num_classes": num_classes, "in_channels": in_channels}
    given = {key: value for key, value in channels.items() if value is not None}
    if name not in NETWORKS:
        dense: Any = _dense(name, options | given)  # of other methods than a classifier's
        return dense
    kind, size = NETWORKS[name]
    model = kind(**(size | options | given))
    model.config = {
        "name": name, "num_classes": model.num_classes, "in_channels": model.in_channels, **options
    }  # fmt: skip
    return model


def _dense(name: str, options: dict[str, Any]) -> nn.Module:
    """A network of segmentation or detection on a pyramid."""
    from pointcluster.models.dense import mask_rcnn, semantic_fpn

    kind = next(kind for kind in (semantic_fpn, mask_rcnn) if name.startswith(kind.__name__))
    model = kind(name.removeprefix(f"{kind.__name__}_"), **options)
    model.config = {"name": name, "num_classes": model.num_classes, **options}
    return model


def load_model(
    path: str | os.PathLike[str], *, name: str | None = None
) -> tuple[Network, dict[str, Any]]:
    """Read a network that :func:`save_model` wrote, in evaluation mode, and its metadata.

    Args:
        path: Path of either file, or without suffix.
        name: The network that is expected, if only one will do.

    Raises:
        FileNotFoundError: One of the two files is not there.
        ValueError: A file is damaged, the two do not belong together, or they hold another network.
    """
    saved, path = read_model(path), two_files(path)[0]
    if name not in (None, saved.config.get("name")):
        raise ValueError(f"{path} holds {saved.config.get('name')!r}, expected {name!r}")
    try:
        model = create_model(**saved.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a network of this library: {error}") from error
    if wrong := what_differs(model, saved):
        raise ValueError(
            f"{path} holds weights of another network than {saved.config['name']!r}: {wrong}"
        )
    model.to(next(value.dtype for value in saved.weights.values() if value.is_floating_point()))
    model.load_state_dict(saved.weights)
    return model.eval(), saved.noted


class RunNetwork(NamedTuple):
    """A network in evaluation mode, and what its run noted."""

    model: Any
    noted: dict[str, Any]
    """`config`, `classes`, and what the run knew besides: `data_config`, `preprocessing`."""


def network_of_run(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    *,
    build: Callable[..., Any] = create_model,
    name: str | None = None,
    needed: Callable[[Mapping[str, Any]], None] | None = None,
) -> RunNetwork:
    """The network of a run's checkpoint; of a run that averages the weights, the average.

    Args:
        path: The file, as messages name it.
        content: What it holds, as :func:`read_safely` reads it.
        build: `build(**config)` makes a network.
        name: The network that is expected, if only one will do.
        needed: Is called with what the run noted, before anything is built; raises a `ValueError`
            where that will not do.

    Raises:
        ValueError: It is of no run of this library, of another network, or damaged.
    """
    saved = saved_in_run(path, content)
    if name not in (None, saved.config["name"]):
        raise ValueError(f"{path} holds {saved.config['name']!r}, expected {name!r}")
    if needed is not None:
        needed(saved.noted)
    try:
        model = build(**saved.config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a network that cannot be built: {error}") from error
    if wrong := what_differs(model, saved):
        raise ValueError(f"{path} holds weights of another network than it names: {wrong}")
    model.load_state_dict(saved.weights)
    return RunNetwork(model.eval(), saved.noted)


def _pretrained(
    name: str,
    data: str | bool,
    num_classes: int | None,
    in_channels: int | None,
    options: dict[str, Any],
) -> Network:
    """A network with the weights that come with the package, in evaluation mode."""
    known = [trained_on for network, trained_on in list_pretrained(task=None) if network == name]
    chosen = known[0] if data is True and known else data
    if chosen not in known:
        have = ", ".join(f"{on!r} for {network}" for network, on in list_pretrained(task=None))
        raise ValueError(f"no weights of {name} for {data!r} come with the package, only: {have}")
    saved = read_model(FOLDER / f"{name}-{chosen}", digest=PRETRAINED[name, str(chosen)])
    if in_channels not in (None, saved.config["in_channels"]):
        raise ValueError(
            f"{name} was trained on {chosen} with in_channels = {saved.config['in_channels']}, "
            f"found {in_channels}"
        )
    model: Network = create_model(**(saved.config | options))
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {name} for {chosen!r} do not fit the options "
            f"{', '.join(options)}: {error}"
        ) from error
    if num_classes not in (None, model.num_classes):
        model.reset_classifier(num_classes)
    return model.eval()
