"""Classes of points: this library's networks and what else one would take, on the same scans.

Everybody gets the same training scans, features, augmentation and minutes of one core's time, and
is measured on whole test scans that none has seen, after the last step: PointNet++'s network (the
example of PyTorch Geometric, its searches by this library), gradient-boosted trees of scikit-learn
on the eigenvalues of neighbourhoods, and this library's networks with clusters and without. Runs
that are in the results already are not run again. With ``--speed`` nothing is trained: the weights
that ship label a large scan, from file to file, on a machine that should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import RESULTS, machine
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MLP
from torch_geometric.utils import scatter

from pointcluster import datasets
from pointcluster.files import write_whole
from pointcluster.geometry import anchor_geometry, knn
from pointcluster.geometry.carry import carry_geometry
from pointcluster.models import create_model
from pointcluster.models.stitch import segment_scene
from pointcluster.nn.carry_back import interpolate
from pointcluster.training.segmenter import SceneBlocks, SceneRecipe, class_table

METRE = 0.1
"""What a metre is to PointNet++, so that positions are as large as features."""


class PointNet2(nn.Module):
    """PointNet++ for points, as PyTorch Geometric's example has it, on the nearest 32 of each.

    "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", Qi et al.,
    NeurIPS 2017.
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.down1 = MLP([in_channels + 3, 64, 64, 128], plain_last=False)
        self.down2 = MLP([128 + 3, 128, 128, 256], plain_last=False)
        self.whole = MLP([256 + 3, 256, 512, 1024], plain_last=False)
        self.up3 = MLP([1024 + 256, 256, 256], plain_last=False)
        self.up2 = MLP([256 + 128, 256, 128], plain_last=False)
        self.up1 = MLP([128 + in_channels, 128, 128, 128], plain_last=False)
        self.head = MLP([128, 128, 128, num_classes], dropout=0.5, norm=None)

    def forward(self, data: Batch) -> Tensor:
        batch, size = data.batch, data.num_graphs
        pos, x = METRE * data.pos, data.x
        first = anchor_geometry(pos, 0.2, 32, batch, batch_size=size)
        second = anchor_geometry(first.pos, 0.25, 32, first.batch, batch_size=size)
        near = torch.cat([x[first.grouping], first.relative], dim=2)  # [N_1, 32, F + 3]
        one = self.down1(near.flatten(0, 1)).unflatten(0, near.shape[:2]).amax(dim=1)
        near = torch.cat([one[second.grouping], second.relative], dim=2)
        two = self.down2(near.flatten(0, 1)).unflatten(0, near.shape[:2]).amax(dim=1)
        mean = scatter(second.pos, second.batch, 0, size, "mean")
        far = self.whole(torch.cat([two, second.pos - mean[second.batch]], dim=1))
        cloud = scatter(far, second.batch, 0, size, "max")
        two = self.up3(torch.cat([cloud[second.batch], two], dim=1))
        counts = [
            torch.bincount(b, minlength=size).tolist() for b in (batch, first.batch, second.batch)
        ]
        back = carry_geometry(first.pos, second.pos, 3, counts[1], counts[2])
        one = self.up2(torch.cat([interpolate(two, back), one], dim=1))
        back = carry_geometry(pos, first.pos, 3, counts[0], counts[1])
        return self.head(self.up1(torch.cat([interpolate(one, back), x], dim=1)))


class NoCluster(nn.Module):
    """Stands in a block where the cluster was, and adds nothing."""

    def __init__(self, cluster: Any) -> None:
        super().__init__()
        self.channels, self.alpha, self.find = cluster.channels, torch.zeros(1), cluster.geometry

    def geometry(self, *given: Any, **options: Any) -> Any:
        return self.find(*given, **options)

    def forward(self, x: Tensor, geometry: Any, *, residual: Tensor | None, **_: Any) -> Tensor:
        return torch.zeros_like(x) if residual is None else residual


def without_clusters(model: nn.Module) -> nn.Module:
    for block in list(model.modules()):
        if hasattr(block, "cluster") and hasattr(block, "mlp"):
            block.cluster = NoCluster(block.cluster)
    return model


def eigenvalue_features(scene: Data) -> np.ndarray:
    """Shapes of neighbourhoods of 10, 30 and 100 points, by their covariance's eigenvalues.

    "Contour detection in unstructured 3D point clouds", Hackel et al., CVPR 2016. [N, F]
    """
    pos = scene.pos
    columns = [] if scene.get("x") is None else [scene.x.numpy()]
    for k in (10, 30, 100):
        parts = []
        for rows in torch.arange(len(pos)).split(50_000):
            near = pos[knn(pos, pos[rows].contiguous(), min(k, len(pos)))]
            around = near - near.mean(dim=1, keepdim=True)
            values, vectors = torch.linalg.eigh(around.mT @ around / k)
            small, middle, large = values.clamp_min(1e-9).unbind(1)
            shape = [(large - middle) / large, (middle - small) / large, small / large,
                     small / (small + middle + large), large.sqrt(),
                     1 - vectors[:, 2, 0].abs()]  # fmt: skip
            shape += [pos[rows, 2] - near[:, :, 2].amin(dim=1),
                      near[:, :, 2].amax(dim=1) - pos[rows, 2]]  # fmt: skip
            parts.append(torch.stack(shape, dim=1))
        columns.append(torch.cat(parts).numpy())
    return np.concatenate(columns, axis=1)


def train_network(
    model: nn.Module, train: Any, recipe: SceneRecipe, seconds: float, seed: int
) -> int:
    """Train for so many seconds of this process's time; the number of steps."""
    blocks = SceneBlocks(train, recipe.num_points, voxel_size=recipe.voxel_size)
    change, weights = recipe.train_transform(), recipe.class_weights(train, model.num_classes)
    optimizer = recipe.optimizer_of(model, recipe.lr)
    generator = torch.Generator().manual_seed(seed)
    start, steps = time.process_time(), 0
    while (done := (time.process_time() - start) / seconds) < 1:
        rate = min(1.0, done / 0.08 + 0.05) * 0.5 * (1 + np.cos(np.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate
        chosen = torch.randint(len(blocks), (recipe.batch_size,), generator=generator).tolist()
        batch = Batch.from_data_list([change(blocks[number]) for number in chosen])
        logits = model.train()(batch)
        loss = nn.functional.cross_entropy(logits, batch.y, weights, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
        optimizer.step()
        steps += 1
    return steps


def run_network(
    build: Callable[[], nn.Module], train: Any, test: Any, recipe: SceneRecipe, minutes: float,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    torch.manual_seed(seed)
    model = build()
    steps = train_network(model, train, recipe, 60 * minutes, seed)
    model.eval()
    edge = SceneBlocks(train, recipe.num_points).edge(recipe.num_points)
    options = {"edge": edge, "num_points": recipe.num_points, "voxel_size": recipe.voxel_size}
    start = time.perf_counter()
    told = [segment_scene(model, scene, **options).argmax(dim=1) for scene in test]
    parameters = sum(p.numel() for p in model.parameters())
    return measured(test, told, time.perf_counter() - start, model.num_classes) | {
        "steps": steps, "parameters": parameters
    }  # fmt: skip


def run_trees(train: Any, test: Any, recipe: SceneRecipe, minutes: float, seed: int) -> dict:
    """Gradient-boosted trees, as many as there is time for."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    start = time.process_time()
    x = np.concatenate([eigenvalue_features(scene) for scene in train])
    y = np.concatenate([scene.y.numpy() for scene in train])
    x, y = x[y >= 0], y[y >= 0]
    weights = recipe.class_weights(train, len(train.classes)).numpy()[y]
    trees = HistGradientBoostingClassifier(max_iter=1, warm_start=True, random_state=seed,
                                           early_stopping=False)  # fmt: skip
    trees.fit(x, y, weights)
    while time.process_time() - start < 60 * minutes and trees.max_iter <= 500:
        trees.max_iter += 10
        trees.fit(x, y, weights)
    begin = time.perf_counter()
    told = [torch.from_numpy(trees.predict(eigenvalue_features(scene))) for scene in test]
    seconds = time.perf_counter() - begin
    return measured(test, told, seconds, len(train.classes)) | {"steps": trees.n_iter_}


def measured(test: Any, told: list[Tensor], seconds: float, classes: int) -> dict[str, Any]:
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for scene, found in zip(test, told, strict=True):
        known = scene.y >= 0
        pairs = scene.y[known] * classes + found[known]
        confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    ious = [row[2] for row in class_table(confusion, test.classes)[1:]]
    return {
        "accuracy": float(confusion.diag().sum() / confusion.sum()),
        "miou": statistics.fmean(iou for iou in ious if iou is not None),
        "ious": ious,
        "points_a_second": sum(len(scene.pos) for scene in test) / seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def speed(million: float, scan: Path | None) -> None:
    """Label a scan by the command that users have; print points a second and the peak of memory.

    Args:
        million: Points of the scan, in millions: copies of it side by side, cut where it ends.
        scan: The scan; ``None``: Autzen, which ships.
    """
    import laspy

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "scan.laz"
        las = laspy.read(scan or datasets.Autzen().files[0])
        count, size = round(1e6 * million), np.array([np.ptp(las.X), np.ptp(las.Y)]) + 1
        wide = math.ceil(math.sqrt(count / len(las.points)))
        with laspy.open(source, "w", header=las.header) as writer:
            for number in range(math.ceil(count / len(las.points))):
                points = las.points[: count - number * len(las.points)].copy()
                points.array["X"] += number // wide * size[0]
                points.array["Y"] += number % wide * size[1]
                writer.write_points(points)
        command = [sys.executable, "-W", "ignore", "-m", "pointcluster.segment", "lidar_hd",
                   str(source), "--out", str(Path(folder) / "out"), "--quiet"]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime
    print(f"{count:,} points, LAZ to LAZ, the program's start and compiling included: "
          f"{seconds:,.1f} s, {count / seconds:,.0f} points/s; {busy:,.1f} s of all cores' time, "
          f"{count / busy:,.0f} points/s of one core; at most {used.ru_maxrss / 1024:,.0f} MB. "
          f"{machine()}.")  # fmt: skip


def contestants(classes: int, channels: int) -> dict[str, Callable[[], nn.Module] | None]:
    def ours(name: str, **options: Any) -> nn.Module:
        return create_model(name, num_classes=classes, in_channels=channels, place=False, **options)

    return {
        "point_coc_small_seg": lambda: ours("point_coc_small_seg"),
        "point_coc_small_seg, assigned": lambda: ours("point_coc_small_seg", carry="assign"),
        "point_coc_small_seg without clusters": lambda: without_clusters(
            ours("point_coc_small_seg")
        ),
        "point_coc_tiny_seg": lambda: ours("point_coc_tiny_seg"),
        "PointNet++": lambda: PointNet2(classes, channels),
        "boosted trees": None,
    }


def page(data: str, minutes: float, runs: list[dict[str, Any]], classes: list[str]) -> str:
    lines = [
        "# Classes of points",
        "",
        f"{data}, {minutes:g} minutes of one core's time for each, mean and spread over seeds, on "
        f"whole test scans after the last step. {machine()}.",
        "",
        f"| who | seeds | accuracy | mIoU | {' | '.join(classes)} | points/s | peak MB |",
        "| --- " + "| ---: " * (5 + len(classes)) + "|",
    ]
    for name in dict.fromkeys(run["name"] for run in runs):
        mine = [run for run in runs if run["name"] == name]

        def share(values: list[float]) -> str:
            text = f"{100 * statistics.fmean(values):.1f}"
            return text + (f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")

        cells = [name, str(len(mine)), share([run["accuracy"] for run in mine])]
        cells.append(share([run["miou"] for run in mine]))
        cells += [share([run["ious"][i] or 0.0 for run in mine]) for i in range(len(classes))]
        cells.append(f"{statistics.median(run['points_a_second'] for run in mine):,.0f}")
        cells.append(f"{max(run['peak_mb'] for run in mine):,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="LiDAR HD's tiles (Autzen, which ships)")
    add("--minutes", type=float, default=10.0, help="of one core's time, for each run")
    add("--seeds", type=int, default=3)
    add("--only", nargs="+", metavar="NAME", help="some of those that are compared")
    add("--num-points", type=int, default=4096, help="points of a block")
    add("--speed", type=float, metavar="MILLION", help="label so many points, train nothing")
    add("--scan", type=Path, metavar="FILE", help="of --speed: repeated to so many (Autzen)")
    add("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.speed:
        return speed(args.speed, args.scan)
    options: dict[str, Any] = {"num_points": args.num_points, "batch_size": 2}
    if args.data is None:
        train, test = datasets.Autzen("train"), datasets.Autzen("test")
    else:
        train, test = datasets.LidarHD(args.data), datasets.LidarHD(args.data, "test")
        options |= {"lr": 2.5e-3, "voxel_size": 1.0, "brighten": 0.3}  # as in the example
    name, recipe = type(train).__name__, SceneRecipe(**options)
    everybody = contestants(len(train.classes), train.in_channels)
    if unknown := set(args.only or ()) - set(everybody):
        parser.error(f"--only {sorted(unknown)}: expected some of {[*everybody]}")
    file = args.out / "segmentation.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for who in args.only or everybody:
        for seed in range(args.seeds):
            key = {"data": name, "name": who, "seed": seed, "minutes": args.minutes}
            if any(key.items() <= run.items() for run in runs):
                continue
            build = everybody[who]
            found = (
                run_trees(train, test, recipe, args.minutes, seed)
                if build is None
                else run_network(build, train, test, recipe, args.minutes, seed)
            )
            runs.append(key | found)
            print(f"{who}, seed {seed}: accuracy {found['accuracy']:.1%}, mIoU {found['miou']:.1%}",
                  flush=True)  # fmt: skip
            write_whole(file, json.dumps(runs, indent=1) + "\n")
    mine = [run for run in runs if (run["data"], run["minutes"]) == (name, args.minutes)]
    write_whole(args.out / "segmentation.md", page(name, args.minutes, mine, train.classes))


if __name__ == "__main__":
    main()
