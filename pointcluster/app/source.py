"""What there is to look at: pictures and scans that a user gave, and examples."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch_geometric.data import Data

from pointcluster.datasets import FashionMNIST, HomeObjects, read_image, read_points
from pointcluster.datasets.readers.points import MESHES, TEXTS
from pointcluster.files import bundled_folder
from pointcluster.viz.camera import View, project, reach
from pointcluster.viz.shading import eye_dome

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Not .pcd: it may be compressed, and says nowhere how much memory it takes.
SCANS = (*MESHES, ".npy", *TEXTS)
SCENES = (".las", ".laz")
KINDS = {
    suffix: kind
    for kind, suffixes in (("picture", PICTURES), ("scan", SCANS), ("scene", SCENES))
    for suffix in suffixes
}
"""What a file is, by its suffix: ``"picture"``, ``"scan"`` or ``"scene"``."""

# Photographs that two libraries carry in their wheels, where they are installed.
_PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png", "astronaut"),
    ("skimage", "data/chelsea.png", "cat"),
    ("skimage", "data/coffee.png", "coffee"),
    ("skimage", "data/rocket.jpg", "rocket"),
    ("sklearn", "datasets/images/china.jpg", "palace"),
    ("sklearn", "datasets/images/flower.jpg", "flower"),
)
_OBJECTS = ("chair", "person", "plant", "lamp", "sofa", "vehicle", "bed", "vessel")


class Source(NamedTuple):
    """A picture, a scan of one thing or a scan of a scene, before any network's preprocessing."""

    name: str
    """What it is called on the page."""
    kind: str
    """One of :data:`KINDS`."""
    content: Any
    """The bytes of an uploaded file; of an example PIL's picture, PyG's Data, or the path."""

    @property
    def is_upload(self) -> bool:
        """Whether a user gave it."""
        return isinstance(self.content, bytes)


def uploaded(path: str | os.PathLike[str]) -> Source:
    """Take an uploaded file, and delete it; nothing of it is decoded yet.

    Raises:
        OSError: It cannot be read.
        ValueError: Its suffix is unknown, or it is empty.
    """
    path = Path(path)
    try:
        if (kind := KINDS.get(path.suffix.lower())) is None:
            packed = " Unpack it first." if path.suffix.lower() in (".pcd", ".gz", ".zip") else ""
            raise ValueError(
                f"{path.name} is of a kind that is not taken here.{packed} Pictures: "
                f"{' '.join(PICTURES)}. Scans: {' '.join((*SCANS, *SCENES))}."
            )
        if not (content := path.read_bytes()):
            raise ValueError(f"{path.name} is empty")
        return Source(path.name, kind, content)
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def as_file(source: Source) -> Iterator[Path]:
    """An upload, or an example that is a file, for the readers that take a path.

    It lies in an empty folder, so that no reader finds another file beside it, and is gone when the
    block is left. A :class:`ValueError` from inside names it as the user does.
    """
    with tempfile.TemporaryDirectory(prefix="pointcluster-") as folder:
        path = Path(folder) / f"upload{Path(source.name).suffix.lower()}"
        path.write_bytes(source.content if source.is_upload else source.content.read_bytes())
        try:
            yield path
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), source.name)) from error
        except MemoryError as error:
            raise ValueError(f"{source.name} would take too much memory") from error


def examples() -> dict[str, list[Source]]:
    """What is there without an upload, by kinds: of the data sets and libraries that came along."""
    return {"scan": _scans(), "picture": _pictures(), "scene": _scenes()}


def _scans() -> list[Source]:
    """Test clouds of HomeObjects, one each of some classes."""
    try:
        test = HomeObjects(split="test")
    except FileNotFoundError:
        return []
    names = [test.classes[int(item.y)] for item in test]
    found = []
    for name in filter(names.__contains__, _OBJECTS):
        item = test[names.index(name)]
        data = Data(pos=item.pos, normal=item.normal, origin=(0.0, 0.0, 0.0))
        found.append(Source(f"{name.replace('_', ' ')} (HomeObjects)", "scan", data))
    return found


def _pictures() -> list[Source]:
    """Test pictures of Fashion-MNIST, one a class, and photographs of installed libraries."""
    found = []
    try:
        test = FashionMNIST(split="test")
    except FileNotFoundError:
        pass
    else:
        targets = test.targets.tolist()
        for label, name in enumerate(test.classes):
            if label in targets:
                image = test[targets.index(label)][0]
                found.append(Source(f"{name} (Fashion-MNIST)", "picture", image))
    for package, inside, name in _PHOTOGRAPHS:
        place = importlib.util.find_spec(package)
        if place is None or place.origin is None:
            continue
        path = Path(place.origin).parent / inside
        if path.is_file():
            found.append(Source(f"{name} ({package})", "picture", read_image(path)))
    return found


def _scenes() -> list[Source]:
    """The airborne scan that came along, where what reads it is installed."""
    if not all(map(importlib.util.find_spec, ("laspy", "lazrs"))):
        return []
    try:
        path = bundled_folder("autzen", "autzen.laz") / "autzen.laz"
    except FileNotFoundError:
        return []
    return [Source(path.name, "scene", path)]


def thumbnail(source: Source, side: int = 160) -> Image.Image:
    """A small square picture of an example."""
    from PIL import Image, ImageOps

    if source.kind == "picture":
        small = source.content.width < side
        method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        return ImageOps.fit(source.content.convert("RGB"), (side, side), method)
    scene = source.kind == "scene"
    pos = (read_points(source.content) if scene else source.content).pos.double().numpy()
    screen, depth = project(pos, View("z", tilt=50.0) if scene else View())
    low, high = reach(screen, slimmest=1.0)
    points = np.concatenate([screen, depth[:, None]], axis=1)
    grey = np.full((1, len(pos), 3), (0.72, 0.75, 0.8))
    return Image.fromarray(eye_dome(points, grey, (side, side), low, high)[0])
