"""What happens when a user does something on the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pointcluster.app.checkpoint import OWN, read_checkpoint
from pointcluster.app.choices import Place
from pointcluster.app.look import Look, drawing
from pointcluster.app.network import Network
from pointcluster.app.shown import Shown
from pointcluster.app.source import uploaded

FORMATS = (".png", ".svg", ".pdf", ".html", ".ply")
"""What can be downloaded."""


def network_for(kind: str, title: str, networks: Mapping[str, Network]) -> Network:
    """The chosen network if it takes this kind of input, else the first that does.

    Args:
        kind: `"picture"` or `"scan"`.
        title: The chosen network's title.
        networks: All networks that this user may choose.

    Raises:
        ValueError: None takes it.
    """
    chosen = networks.get(title)
    for network in ([chosen] if chosen is not None else []) + list(networks.values()):
        if network.kind == kind:
            return network
    raise ValueError(
        f"none of the networks here takes a {kind}: open one that does under 'Your own network', "
        "or name it with --checkpoint"
    )


def open_upload(
    path: str | os.PathLike[str],
    title: str,
    networks: Mapping[str, Network],
    *,
    max_bytes: int,
    up: str | None = None,
    progress: Callable[[float, str], Any] = lambda share, what: None,
) -> Shown:
    """Show an uploaded picture or scan to the chosen network, or the first that takes such.

    The upload itself is deleted, whatever becomes of it.

    Args:
        path: Where it lies.
        title: The chosen network's title.
        networks: All networks that this user may choose.
        max_bytes: The largest upload that is taken.
        up: The axis that points up in scans; the network's own, if not said.
        progress: Told how far it is.

    Raises:
        ImportError, OSError, ValueError: It cannot be read, or no network takes it.
    """
    try:
        source = uploaded(path, max_bytes)
    finally:
        Path(path).unlink(missing_ok=True)
    network = network_for(source.kind, title, networks)
    return Shown(network, source, None, up if source.kind == "scan" else None, progress=progress)


def open_checkpoint(paths: Sequence[str | os.PathLike[str]]) -> Network:
    """A user's own network from the one or two files that were uploaded.

    The uploads are deleted, whatever becomes of them.

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
        if path.suffix.lower() in OWN and not notes:
            raise ValueError(f"{path.name} needs its .json: choose both files together")
        if notes:
            # The reader expects them side by side, under one name.
            notes[0].rename(path.with_suffix(".json"))
            notes = [path.with_suffix(".json")]
        try:
            return read_checkpoint(path, title=f"yours: {path.name}")
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path.parent}{os.sep}", "")) from error
    finally:
        for path in [*files, *notes]:
            path.unlink(missing_ok=True)


def save_view(shown: Shown, places: Sequence[Place], look: Look, suffix: str) -> Path:
    """Write what is shown as a file to download.

    Args:
        shown: What the user looks at.
        places: Which heads' clusters; points in three dimensions are those of the first alone.
        look: How.
        suffix: One of :data:`FORMATS`.

    Raises:
        ImportError, OSError, ValueError: It cannot be written, or there is no such format.
    """
    from pointcluster import viz

    if suffix not in FORMATS:
        raise ValueError(f"the format is {suffix!r}, expected one of {' '.join(FORMATS)}")
    chosen = list(places[:1] if suffix == ".ply" else places)
    clusters, options = drawing(shown, chosen, look)
    stem = "".join(c if c.isalnum() else "-" for c in Path(shown.source.name).stem).strip("-")
    place = chosen[0]
    name = f"{stem or 'clusters'}-stage{place.stage}-block{place.block}-head{place.head}{suffix}"
    path = shown.folder / name
    viz.save(path, shown.data, clusters, **options)
    return path
