"""Small scans on disk, as the tests of segmentation need them."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

ORIGIN = np.array([650_000.0, 6_860_000.0, 30.0])


def village(size: int = 3000, *, seed: int = 0, edge: float = 60.0) -> dict[str, np.ndarray]:
    """Flat ground with a house and trees: positions, classes 2, 5 and 6, and what was measured."""
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, edge, (size, 3))
    label = np.full(size, 2)
    pos[:, 2] = 0.02 * pos[:, 0] + rng.normal(0, 0.03, size)
    house = (abs(pos[:, 0] - edge / 4) < edge / 8) & (abs(pos[:, 1] - edge / 3) < edge / 8)
    pos[house, 2], label[house] = 6 + rng.normal(0, 0.02, house.sum()), 6
    tree = ~house & (rng.random(size) < 0.3) & (pos[:, 0] > edge / 2)
    pos[tree, 2], label[tree] = rng.uniform(2, 12, tree.sum()), 5
    returns = np.where(tree, rng.integers(1, 4, size), 1)
    return {
        "pos": pos + ORIGIN,
        "label": label.astype(np.uint8),
        "intensity": rng.integers(100, 4000, size).astype(np.uint16),
        "number_of_returns": returns.astype(np.uint8),
        "return_number": np.minimum(returns, rng.integers(1, 4, size)).astype(np.uint8),
    }


def write_scan(
    path: Path, points: dict[str, np.ndarray], *, form: int = 6, wkt: str | None = None
) -> Path:
    """Write a LAS or LAZ file with colours, times, an extra dimension and records of its own."""
    header = laspy.LasHeader(point_format=form, version="1.4" if form > 5 else "1.2")
    header.scales, header.offsets = np.full(3, 0.001), ORIGIN
    header.add_extra_dim(laspy.ExtraBytesParams(name="confidence", type=np.float32))
    header.vlrs.append(laspy.VLR("somebody", 77, "what they know", b"\x01\x02\x03" * 9))
    if wkt is not None:
        header.vlrs.append(laspy.vlrs.known.WktCoordinateSystemVlr(wkt))
    las = laspy.LasData(header)
    las.x, las.y, las.z = points["pos"].T
    las.classification = points["label"]
    for name in ("intensity", "return_number", "number_of_returns"):
        if name in points:
            las[name] = points[name]
    rng = np.random.default_rng(1)
    for name in set(las.point_format.dimension_names) & {"gps_time", "confidence"}:
        las[name] = rng.random(len(points["pos"]))
    for name in set(las.point_format.dimension_names) & {"user_data", "red", "green", "blue"}:
        las[name] = rng.integers(1, 250, len(points["pos"]))
    if form > 5:
        las.overlap = rng.integers(0, 2, len(points["pos"]))
        las.scanner_channel = rng.integers(0, 4, len(points["pos"]))
    else:
        las.withheld = rng.integers(0, 2, len(points["pos"]))
    las.write(path)
    return path
