"""Geometry in the loader: seconds an epoch with the neighbour search in the step and before it.

Networks train on HomeObjects. The search is done in the step, by the network; in the loader, cloud
by cloud (`PrecomputeHierarchy` as the last transform) or for a batch at once (its `collate`); or
not at all, on batches that were made and searched before: what is left then is the least that an
epoch can take. Workers are started, and the first epoch through, before anything is timed. All
ways see the same clouds, augmentation and dropout; the losses of their first steps are compared.
The default, a part of the clouds and the small network, takes less than two minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import torch
from measure import medians_and_peak, number, parser, report, table
from torch import nn
from torch_geometric.transforms import Compose, FixedPoints

from pointcluster import training
from pointcluster.datasets import HomeObjects
from pointcluster.models import create_model, list_models
from pointcluster.transforms import PrecomputeHierarchy, RandomAnisotropicScale, RandomTranslate

STEP, CLOUD, BATCH, READY = "in the step", "loader, a cloud", "loader, a batch", "none"


def main() -> None:
    args = parse_arguments()
    clouds = HomeObjects(split="train")
    clouds = clouds[: args.clouds] if args.clouds else clouds
    calls: dict[Any, Callable[[], Any]] = {}
    differences: dict[tuple[str, int, str], float] = {}
    for name in args.models:
        torch.manual_seed(0)
        model = create_model(name, num_classes=len(clouds.classes))
        start = {key: value.clone() for key, value in model.state_dict().items()}
        loaders: dict[tuple[int, str], Iterable[Any]] = {
            (workers, way): loader(model, way, clouds, workers, args)
            for workers in args.workers
            for way in (STEP, CLOUD, BATCH)
        }
        loaders[0, READY] = list(loader(model, BATCH, clouds, 0, args))
        losses = {}
        for case, batches in loaders.items():
            model.load_state_dict(start)
            losses[case] = epoch(model, batches, args.check)
            calls[(name, *case)] = lambda model=model, batches=batches: epoch(model, batches)
        for case, found in losses.items():
            expected = losses[args.workers[0], STEP]
            gap = max(abs(a - b) for a, b in zip(found, expected, strict=True))
            differences[(name, *case)] = gap
    seconds, peak = medians_and_peak(calls, repeats=args.repeats, budget=args.budget)
    parts = page(args, seconds, differences, peak, len(clouds))
    report(args.out / "loader.md", "Geometry in the loader", parts)


def parse_arguments() -> argparse.Namespace:
    names = list_models("point*")
    args = parser(__doc__, memory=False, budget=20.0)
    args.set_defaults(repeats=3)
    add = args.add_argument
    add("--models", nargs="+", choices=names, default=["point_coc_tiny"], metavar="NAME",
        help="networks, of " + ", ".join(names))  # fmt: skip
    add("--workers", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="numbers of workers")
    add("--batch-size", type=int, default=32, metavar="B", help="clouds a batch")
    add("--num-points", type=int, default=1024, metavar="N", help="points a cloud")
    add("--clouds", type=int, default=96, metavar="N", help="only the first clouds; 0: all")
    add("--check", type=int, default=2, metavar="N", help="steps whose losses are compared")
    return args.parse_args()


def loader(
    model: nn.Module, way: str, clouds: HomeObjects, workers: int, args: argparse.Namespace
) -> torch.utils.data.DataLoader:
    """The training loader of one way to search; its order and augmentation are always the same."""
    search = PrecomputeHierarchy(model)
    steps = [
        FixedPoints(args.num_points, replace=False),
        RandomAnisotropicScale(0.8, 1.25),
        RandomTranslate(0.1),
    ]
    return training.PointDataModule(
        clouds,
        clouds,
        batch_size=args.batch_size,
        num_workers=workers,
        train_transform=Compose([*steps, search] if way == CLOUD else steps),
        collate=search.collate if way == BATCH else None,
    ).train_dataloader()


def epoch(model: nn.Module, batches: Iterable[Any], steps: int | None = None) -> list[float]:
    """Train for one epoch, or so many steps of it, and give the losses."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for batch in batches:
        torch.manual_seed(len(losses))  # loaders draw from the same generator
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch), batch.y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) == steps:
            break
    return losses


def page(
    args: argparse.Namespace,
    seconds: dict[tuple[str, int, str], float],
    differences: dict[tuple[str, int, str], float],
    peak: float,
    clouds: int,
) -> list[str]:
    rows = []
    for name in args.models:
        for workers in args.workers:
            step, *others = (seconds[name, workers, way] for way in (STEP, CLOUD, BATCH))
            saved = 100 * (1 - min(others) / step)
            ways = [number(value) for value in (step, *others, seconds[name, 0, READY])]
            rows.append([f"{name}, {workers} workers", *ways, f"{saved:.0f}"])
    header = ["", STEP, CLOUD, BATCH, READY, "saved, %"]
    return [
        f"{clouds} clouds of {args.num_points:,} points of HomeObjects in batches of "
        f"{args.batch_size}, float32; a float32 matrix product reached {peak:,.0f} GFLOP/s in turn "
        "with them.",
        "## Seconds an epoch of training",
        "Where neighbours are searched. Saved: by the better way in the loader.",
        table(header, rows),
        f"The largest difference of a loss of the first {args.check} steps to the search in the "
        f"step: {max(differences.values()):.1e}.",
    ]


if __name__ == "__main__":
    main()
