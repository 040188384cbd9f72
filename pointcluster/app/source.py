"""What there is to look at: pictures and scans that a user gave, and examples."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch_geometric.data import Data

from pointcluster.datasets import FashionMNIST, HomeObjects, read_image
from pointcluster.datasets.readers.points import MESHES, TEXTS
from pointcluster.viz.camera import nearness, project, reach

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Not .pcd and .laz: they are compressed, so the size of a file does not bound the memory it takes.
SCANS = (*MESHES, ".las", ".npy", *TEXTS)

# Photographs that two libraries carry in their wheels, where they are installed.
_PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png", "astronaut"),
    ("skimage", "data/chelsea.png", "cat"),
    ("skimage", "data/coffee.png", "coffee"),
    ("skimage", "data/rocket.jpg", "rocket"),
    ("sklearn", "datasets/images/china.jpg", "palace"),
    ("sklearn", "datasets/images/flower.jpg", "flower"),
)
_SCANS = ("chair", "person", "plant", "lamp", "sofa", "vehicle", "bed", "vessel")


class Source(NamedTuple):
    """A picture or a scan before any network's preprocessing."""

    name: str
    """What it is called on the page."""
    kind: str
    """`"picture"` or `"scan"`."""
    content: Any
    """The bytes of an uploaded file; of an example PIL's picture or PyG's Data."""


def uploaded(path: str | os.PathLike[str], max_bytes: int) -> Source:
    """Take an uploaded file; nothing of it is decoded yet.

    Args:
        path: Where the upload lies.
        max_bytes: The largest one that is taken.

    Raises:
        OSError: It cannot be read.
        ValueError: Its suffix is unknown, it is empty or too large. The message names it without
            its folder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURES + SCANS:
        packed = " Unpack it first." if suffix in (".laz", ".pcd", ".gz", ".zip") else ""
        raise ValueError(
            f"{path.name} is of a kind that is not taken here.{packed} Pictures: "
            f"{' '.join(PICTURES)}. Scans: {' '.join(SCANS)}."
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(
            f"{path.name} has {size / 1e6:,.1f} MB, at most {max_bytes / 1e6:,.0f} MB are taken"
        )
    if not size:
        raise ValueError(f"{path.name} is empty")
    kind = "picture" if suffix in PICTURES else "scan"
    return Source(path.name, kind, path.read_bytes())


def example_scans() -> list[Source]:
    """Test clouds of HomeObjects, one each of some classes; none where they did not come along."""
    try:
        test = HomeObjects(split="test")
    except FileNotFoundError:
        return []
    names = [test.classes[int(item.y)] for item in test]
    sources = []
    for name in _SCANS:
        if name in names:
            item = test[names.index(name)]
            data = Data(pos=item.pos, normal=item.normal, origin=(0.0, 0.0, 0.0))
            sources.append(Source(f"{name.replace('_', ' ')} (HomeObjects)", "scan", data))
    return sources


def example_pictures() -> list[Source]:
    """Test pictures of Fashion-MNIST, one a class, and photographs of installed libraries."""
    sources = []
    try:
        test = FashionMNIST(split="test")
    except FileNotFoundError:
        pass
    else:
        targets = test.targets.tolist()
        for label, name in enumerate(test.classes):
            if label in targets:
                image = test[targets.index(label)][0]
                sources.append(Source(f"{name} (Fashion-MNIST)", "picture", image))
    for package, inside, name in _PHOTOGRAPHS:
        place = importlib.util.find_spec(package)
        if place is None or place.origin is None:
            continue
        path = Path(place.origin).parent / inside
        if path.is_file():
            sources.append(Source(f"{name} ({package})", "picture", read_image(path)))
    return sources


def thumbnail(source: Source, side: int = 160) -> Image.Image:
    """A small picture of an example, square.

    Args:
        source: The example.
        side: Its side in pixels.
    """
    from PIL import Image, ImageDraw, ImageOps

    if source.kind == "picture":
        small = source.content.width < side
        method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        return ImageOps.fit(source.content.convert("RGB"), (side, side), method)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    screen, depth = project(source.content.pos.double().numpy())
    low, high = reach(screen, slimmest=1.0)
    places, near = side * (screen - low) / (high - low), nearness(depth)
    for i in np.argsort(near, kind="stable"):
        grey = round(215 - 160 * float(near[i]))
        column, row = places[i, 0], side - places[i, 1]
        draw.ellipse((column - 1, row - 1, column + 1, row + 1), fill=(grey, grey, grey + 12))
    return image
