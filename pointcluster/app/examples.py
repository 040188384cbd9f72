"""Pictures and scans that are there without a download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch_geometric.data import Data

from pointcluster.app.source import Source
from pointcluster.datasets import FashionMNIST, HomeObjects, read_image

if TYPE_CHECKING:
    from PIL import Image

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


def example_scans() -> list[Source]:
    """Test clouds of HomeObjects, one each of some classes; none where they did not come along."""
    try:
        test = HomeObjects(split="test")
    except FileNotFoundError:
        return []
    names = [test.classes[int(item.y)] for item in test]
    found = []
    for name in _SCANS:
        if name in names:
            item = test[names.index(name)]
            data = Data(pos=item.pos, normal=item.normal, origin=(0.0, 0.0, 0.0))
            found.append(Source(f"{name.replace('_', ' ')} (HomeObjects)", "scan", data))
    return found


def example_pictures() -> list[Source]:
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
    x, y, z = source.content.pos.double().numpy().T
    turn, tilt = np.radians(35), np.radians(20)
    right, toward = x * np.cos(turn) - z * np.sin(turn), x * np.sin(turn) + z * np.cos(turn)
    up, toward = y * np.cos(tilt) - toward * np.sin(tilt), y * np.sin(tilt) + toward * np.cos(tilt)
    near = (toward - toward.min()) / max(float(np.ptp(toward)), 1e-9)  # 0 at the back
    middle, scale = side / 2, 0.46 * side / max(float(np.hypot(right, up).max()), 1e-9)
    for i in np.argsort(near, kind="stable"):
        grey = round(215 - 160 * float(near[i]))
        column, row = middle + scale * right[i], middle - scale * up[i]
        draw.ellipse((column - 1, row - 1, column + 1, row + 1), fill=(grey, grey, grey + 12))
    return image
