"""The networks: parameters, work, clouds a second, and the share of the machine's peak they reach.

A forward pass and a training step (forward, backward, AdamW) of one batch, with the geometry worked
out in the call, given, and alone. The peak is that of a float32 product of two square matrices,
measured in turn with the networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import peers
from cloud_calls import calls_of, clouds
from measure import (
    COLORS,
    PEAK_SIZE,
    flops,
    medians_and_peak,
    number,
    parser,
    picture,
    report,
    table,
    tidy,
)
from torch import nn
from torch_geometric.data import Batch

from pointcluster.datasets import HomeObjects
from pointcluster.models import list_models


def main() -> None:
    args = parse_arguments()
    batch = clouds(args.batch_size, args.num_points)
    classes = len(HomeObjects(split="train").classes)
    models = {name: peers.create(name, classes) for name in args.models}
    calls: dict[Any, Callable[[], Any]] = {}
    for name, model in models.items():
        calls |= {(name, what): call for what, call in calls_of(model, batch).items()}
    seconds, peak = medians_and_peak(
        calls, repeats=args.repeats, budget=args.budget, size=args.peak_size
    )
    work = {name: work_of(model, batch) for name, model in models.items()}
    rate = {case: args.batch_size / value for case, value in seconds.items()}
    report(args.out / "networks.md", "Networks", page(args, models, work, rate, peak))
    picture(args.out / "networks.png", lambda figure: draw(figure, work, rate, peak), size=(11, 4))


def parse_arguments() -> argparse.Namespace:
    names = [*list_models("point_*"), *peers.PEERS]
    args = parser(__doc__, memory=False)
    args.add_argument(
        "--models",
        nargs="+",
        choices=names,
        metavar="NAME",
        default=names,
        help="networks: " + ", ".join(names),
    )
    args.add_argument("--batch-size", type=int, default=32, metavar="B", help="clouds a batch")
    args.add_argument("--num-points", type=int, default=1024, metavar="N", help="points a cloud")
    args.add_argument(
        "--peak-size",
        type=int,
        default=PEAK_SIZE,
        metavar="N",
        help="rows of the square matrices whose product is the peak",
    )
    return args.parse_args()


def work_of(model: nn.Module, batch: Batch) -> dict[str, float]:
    """GFLOP a cloud of the matrix products of an inference and of a training step."""
    calls = calls_of(model, batch)
    return {what: flops(calls[what]) / batch.num_graphs / 1e9 for what in ("inference", "training")}


def page(
    args: argparse.Namespace,
    models: dict[str, nn.Module],
    work: dict[str, dict[str, float]],
    rate: dict[tuple[str, str], float],
    peak: float,
) -> list[str]:
    size_rows, rate_rows, share_rows = [], [], []
    for name, model in models.items():
        parameters = sum(p.numel() for p in model.parameters())
        size_rows.append(
            [
                name,
                f"{parameters:,}",
                f"{work[name]['inference']:.3f}",
                f"{work[name]['training']:.3f}",
            ]
        )
        cells, shares = [], []
        for what in ("inference", "training"):
            for given in ("", ", geometry given"):
                found = rate.get((name, what + given))
                cells.append(number(found))
                of_peak = found and share(work, rate, name, what + given, peak)
                shares.append(number(of_peak))
        rate_rows.append([name, *cells, number(rate.get((name, "geometry")))])
        share_rows.append([name, *shares])
    header = ["network", "inference", "geometry given", "training", "geometry given"]
    return [
        f"Batches of {args.batch_size} clouds of {args.num_points:,} points of HomeObjects, "
        "float32. A peer's search is part of its forward pass, since it is among features.",
        "## Size, and GFLOP a cloud",
        "Of matrix products, searches left out; two operations for a multiply and add.",
        table(["network", "parameters", "inference", "training"], size_rows),
        "## Clouds a second",
        table([*header, "geometry alone"], rate_rows),
        "## Share of the machine's peak, in %",
        f"The peak is {peak:,.0f} GFLOP/s, by a product of two float32 matrices of "
        f"{args.peak_size:,} rows and columns in the same run.",
        table(header, share_rows),
        "![Clouds a second and share of the peak](networks.png)",
    ]


def share(
    work: dict[str, dict[str, float]],
    rate: dict[tuple[str, str], float],
    name: str,
    what: str,
    peak: float,
) -> float:
    """Percent of the peak that a network reaches."""
    return 100 * work[name][what.split(",")[0]] * rate[name, what] / peak


def draw(
    figure: Any,
    work: dict[str, dict[str, float]],
    rate: dict[tuple[str, str], float],
    peak: float,
) -> None:
    """Bars: clouds a second on the left, share of the peak on the right."""
    shown = ["inference", "inference, geometry given", "training", "training, geometry given"]
    colors = [COLORS[0], COLORS[6], COLORS[2], "#f7b7ae"]
    left, right = figure.subplots(1, 2)
    tidy(left, "clouds a second")
    tidy(right, f"share of the matrix product's {peak:,.0f} GFLOP/s, %")
    names = list(work)
    for i, (what, color) in enumerate(zip(shown, colors, strict=True)):
        rows = [row for row, name in enumerate(names) if (name, what) in rate]
        place = [row + (i - 1.5) * 0.2 for row in rows]
        left.barh(
            place, [rate[names[row], what] for row in rows], height=0.18, color=color, label=what
        )
        right.barh(
            place,
            [share(work, rate, names[row], what, peak) for row in rows],
            height=0.18,
            color=color,
        )
    for axes in (left, right):
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
