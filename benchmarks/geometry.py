"""Time and peak memory of the geometry: anchors, neighbours, regions, and all stages of a network.

One page in four parts: one batch of small clouds; how the time a point grows up to a million
points; and, for each operation with each installed backend, time and peak memory a point. `--full`
adds sizes, backends and a second shape.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import (
    COLORS,
    MEMORY_NOTE,
    MIB,
    in_child,
    logarithmic,
    medians,
    medians_and_peak,
    number,
    parser,
    peak_memory,
    picture,
    report,
    table,
    tidy,
)
from torch import Tensor

import pointcluster
from pointcluster.datasets import HomeObjects
from pointcluster.geometry import (
    Hierarchy,
    StagePlan,
    build_hierarchy,
    cluster_geometry,
    fps,
    knn,
    voxel_anchors,
)
from pointcluster.geometry.anchors import FPS_LIMIT

SIZES = [1024, 10_000, 100_000]
FULL_SIZES = [1024, 4096, 10_000, 30_000, 100_000, 300_000, 1_000_000]
K = 16
SHARE = 0.25
FPS_UP_TO = 100_000
"""Farthest point sampling of a share of the points is quadratic: beyond, anchors by voxel."""
PLANS = [StagePlan(ratio=0.5, k=24, region_size=32, num_centers=4, center_k=8)] * 4
"""Four stages that halve the points: 512, 256, 128 and 64 anchors for a cloud of 1,024."""
WHOLE = "all, with regions and centres"
BATCH_TARGET_MS, GROWTH_TARGET = 150, 2.5
Figures = dict[tuple[str, str], dict[int, float]]
"""Of (operation, backend), by the number of points."""
OPERATIONS = {
    "anchors": f"farthest point sampling of {SHARE:.0%} of the points, or one a voxel",
    "neighbours": f"the {K} nearest points of {SHARE:.0%} of the points",
    "regions": "regions of at most 32 points, 4 centres in each, their 8 nearest points",
    "hierarchy": "build_hierarchy: four stages that halve the points, k = 24, regions, centres",
}


def main() -> None:
    args = parse_arguments()
    here = [b.name for b in pointcluster.backends() if b.available]
    backends = args.backends or ["auto", *here]
    batch = page_of_batch(args, backends if args.full else backends[:1])
    seconds = sweep(args, backends)
    memory = in_child(peaks, seconds) if args.memory else {}
    parts = [
        *batch,
        *page_of_growth(args),
        *page_of_sweep(args, seconds, memory),
    ]
    report(args.out / "geometry.md", "Geometry", parts)
    picture(args.out / "geometry.png", lambda figure: draw(figure, seconds, memory), size=(13, 6.2))


def parse_arguments() -> argparse.Namespace:
    args = parser(__doc__, budget=0.5)
    args.add_argument(
        "--full",
        action="store_true",
        help="more sizes, the batch with every backend, points on a sphere, slower calls",
    )
    args.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="points of a cloud; by default some from 1,024 to 100,000, in full to 1,000,000",
    )
    args.add_argument(
        "--backends",
        nargs="+",
        metavar="NAME",
        help="searches to compare; by default auto and all that are here",
    )
    args.add_argument(
        "--limit",
        type=float,
        metavar="S",
        help="leave out calls that, going by smaller clouds, take longer; by default 4, in full 20",
    )
    args.add_argument(
        "--growth",
        type=int,
        nargs=2,
        default=[10_000, 1_000_000],
        metavar="N",
        help="the two sizes whose time a point is compared",
    )
    args.add_argument("--clouds", type=int, default=32, metavar="B", help="clouds of the batch")
    args = args.parse_args()
    args.sizes = sorted(args.sizes or (FULL_SIZES if args.full else SIZES))
    args.limit = args.limit or (20.0 if args.full else 4.0)
    return args


def cube(size: int, seed: int = 0) -> Tensor:
    """Points spread evenly in the unit cube."""
    return torch.rand(size, 3, generator=torch.Generator().manual_seed(seed))


def sphere(size: int, seed: int = 0) -> Tensor:
    """Points spread evenly on a sphere: a surface, as scanners see it."""
    points = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(points)


# Each operation over the number of points --------------------------------------------------------


def operation(name: str, backend: str, pos: Tensor) -> Callable[[], Any]:
    """The call to measure."""
    if name == "anchors":
        if backend == "voxel":
            return lambda: voxel_anchors(pos, SHARE)
        return lambda: fps(pos, SHARE, backend=backend)
    if name == "neighbours":
        query = pos[torch.randperm(len(pos), generator=torch.Generator().manual_seed(1))]
        query = query[: max(1, int(SHARE * len(pos)))]
        return lambda: knn(pos, query, K, backend=backend)
    if name == "regions":
        return lambda: cluster_geometry(pos, num_centers=4, k=8, region_size=32, backend=backend)
    return lambda: build_hierarchy(pos, PLANS, backend=backend)


def growth_of(name: str, backend: str) -> float:
    """With which power of the number of points the time may grow: for what to leave out."""
    if name == "anchors" and backend != "voxel":
        return 2.0
    return 2.0 if backend == "torch" and name in ("neighbours", "hierarchy") else 1.2


def sweep(args: argparse.Namespace, backends: Sequence[str]) -> Figures:
    """Seconds of each operation and backend at each size."""
    cases = [(name, backend) for name in OPERATIONS for backend in backends]
    cases.insert(len(backends), ("anchors", "voxel"))
    seconds: Figures = {case: {} for case in cases}
    for size in args.sizes:
        pos, calls = cube(size), {}
        for case in cases:
            if case[0] == "anchors" and case[1] != "voxel" and size > FPS_UP_TO:
                continue
            if size > args.sizes[0]:
                if not seconds[case]:
                    continue
                last = max(seconds[case])
                if seconds[case][last] * (size / last) ** growth_of(*case) > args.limit:
                    continue
            calls[case] = operation(*case, pos)
        for case, value in medians(calls, repeats=args.repeats, budget=args.budget).items():
            seconds[case][size] = value
    return seconds


def peaks(timed: Figures) -> Figures:
    """Peak bytes of whatever was timed."""
    memory: Figures = {}
    for case, sizes in timed.items():
        operation(*case, cube(256))()  # loads what is loaded once
        memory[case] = {size: peak_memory(operation(*case, cube(size))) for size in sorted(sizes)}
    return memory


def page_of_sweep(
    args: argparse.Namespace,
    seconds: Figures,
    memory: Figures,
) -> list[str]:
    header = ["one cloud, points in a cube", *(f"{size:,}" for size in args.sizes)]
    time_rows, memory_rows = [], []
    for (name, backend), of_case in seconds.items():
        label = f"{name}, {backend}"
        per_point = {size: 1e6 * value / size for size, value in of_case.items()}
        time_rows.append([label, *(number(per_point.get(size)) for size in args.sizes)])
        found = memory.get((name, backend), {})
        bytes_a_point = {n: value / n for n, value in found.items() if value >= MIB}
        memory_rows.append([label, *(number(bytes_a_point.get(size)) for size in args.sizes)])
    parts = [
        "## Time a point, in microseconds",
        "\n".join(f"- {name}: {text}" for name, text in OPERATIONS.items()),
        "`auto` is what the library takes by itself; `hierarchy` takes one anchor a voxel for more "
        f"than 16,384 points. A dash: expected to take more than {args.limit:g} s, or farthest "
        f"point sampling of more than {FPS_UP_TO:,} points.",
        table(header, time_rows),
    ]
    if memory:
        parts += ["## Peak memory a point, in bytes", MEMORY_NOTE, table(header, memory_rows)]
    return [*parts, "![Time and peak memory a point over the number of points](geometry.png)"]


# One batch of small clouds -----------------------------------------------------------------------


def home_objects(count: int, size: int) -> Tensor:
    """The first points of real objects."""
    items = HomeObjects(split="train")
    step = max(1, len(items) // count)  # all classes
    return torch.cat([items[(i * step) % len(items)].pos[:size] for i in range(count)])


def without_regions(pos: Tensor, batch: Tensor, backend: str, size: int) -> list[Tensor]:
    """Anchors and groupings of four stages alone: what other hierarchical networks need."""
    clouds = int(batch[-1]) + 1
    sizes = [size >> stage for stage in range(len(PLANS) + 1)]
    anchors = fps(pos, sizes[1], batch, backend=backend).view(clouds, -1)
    found, points, of_points = [], pos, batch
    for stage, num in enumerate(sizes[1:]):
        query = pos[anchors[:, :num]].flatten(0, 1)
        cloud = torch.arange(clouds).repeat_interleave(num)
        found.append(knn(points, query, PLANS[stage].k, of_points, cloud, backend=backend))
        points, of_points = query, cloud
    return found


def batch_calls(
    clouds: dict[str, Tensor], batch: Tensor, backends: Sequence[str], size: int
) -> dict[tuple[str, str], Callable[[], Any]]:
    """The calls of the first part, by what they do and the data."""
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    partial = functools.partial
    for data, pos in clouds.items():
        for name in backends:
            calls[f"{name}: anchors", data] = partial(fps, pos, size // 2, batch, backend=name)
            calls[f"{name}: anchors and groupings", data] = partial(
                without_regions, pos, batch, name, size
            )
            calls[f"{name}: {WHOLE}", data] = whole = partial(
                build_hierarchy, pos, PLANS, batch, backend=name
            )
            if torch.get_num_threads() > 1:
                calls[f"{name}: {WHOLE}, one thread", data] = partial(in_one_thread, whole)
    return calls


def in_one_thread(call: Callable[[], Any]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        call()
    finally:
        torch.set_num_threads(threads)


def page_of_batch(args: argparse.Namespace, backends: Sequence[str], size: int = 1024) -> list[str]:
    clouds = {"cube": cube(args.clouds * size), "HomeObjects": home_objects(args.clouds, size)}
    batch = torch.arange(args.clouds).repeat_interleave(size)
    check_stages(build_hierarchy(clouds["cube"], PLANS, batch), args.clouds, size)
    calls = batch_calls(clouds, batch, backends, size)
    took, peak = medians_and_peak(calls, repeats=args.repeats, budget=5 * args.budget)
    rows = []
    for what in dict.fromkeys(what for what, _ in calls):
        rows.append([what, *(number(1e3 * took[what, data]) for data in clouds)])
    worst = max(1e3 * took[f"{backends[0]}: {WHOLE}", data] for data in clouds)
    return [
        f"## One batch of {args.clouds} clouds of {size:,} points, in milliseconds",
        "512, 256, 128 and 64 anchors a cloud, each with its 24 nearest points of the stage "
        "before. HomeObjects are real objects, stored on a fine lattice: equal distances are "
        "common.",
        table(["backend: what", *(f"{data}" for data in clouds)], rows),
        f"All four stages, {backends[0]}: {worst:.0f} ms at most, where a float32 matrix product "
        f"that took turns reached {peak:.0f} GFLOP/s; the target is {BATCH_TARGET_MS} ms on 2 CPU "
        "cores without torch-cluster.",
    ]


def check_stages(hierarchy: Hierarchy, clouds: int, size: int) -> None:
    """The batch is what the page says it is."""
    found = [len(stage.anchors.anchor) // clouds for stage in hierarchy.stages]
    expected = [size >> stage for stage in range(1, len(PLANS) + 1)]
    if found != expected:
        raise RuntimeError(f"the stages have {found} anchors a cloud, expected {expected}")


# How the cost of a point grows -------------------------------------------------------------------


def page_of_growth(args: argparse.Namespace) -> list[str]:
    small, large = args.growth
    shapes = (cube, sphere) if args.full else (cube,)
    calls: dict[tuple[str, str, int], Callable[[], Any]] = {}
    for shape in shapes:
        for size in (small, large):
            pos = shape(size)
            for how in ("auto", "voxel") if size <= FPS_LIMIT else ("auto",):
                calls[shape.__name__, how, size] = functools.partial(
                    build_hierarchy, pos, PLANS, sampling=how
                )
    took, peak = medians_and_peak(calls, repeats=args.repeats, budget=args.budget)
    rows, ratios = [], []
    for shape in (shape.__name__ for shape in shapes):
        for sampling in ("auto", "voxel"):
            seconds = (took.get((shape, sampling, n), took[shape, "auto", n]) for n in args.growth)
            low, high = (1e6 * s / n for s, n in zip(seconds, args.growth, strict=True))
            ratios.append(high / low)
            rows.append(
                [f"{shape}, sampling={sampling}", number(low), number(high), f"{high / low:.2f}"]
            )
    header = ["build_hierarchy, one cloud", f"{small:,} points", f"{large:,} points", "ratio"]
    return [
        "## How the time a point grows, in microseconds",
        "Anchors, groupings and regions of all four stages. `auto` takes farthest point sampling "
        "up to 16,384 points and one anchor a voxel beyond, `voxel` the latter for both.",
        table(header, rows),
        f"The ratio is {max(ratios):.2f} at most, at {peak:.0f} GFLOP/s in a matrix product; the "
        f"target is {GROWTH_TARGET} from 10,000 to 1,000,000 points.",
    ]


# Picture -----------------------------------------------------------------------------------------


def draw(
    figure: Any,
    seconds: Figures,
    memory: Figures,
) -> None:
    """A row of panels for time, one for memory; a column an operation, a line a backend."""
    names = list(dict.fromkeys(backend for _, backend in seconds))
    rows = 2 if memory else 1
    panels = figure.subplots(rows, len(OPERATIONS), squeeze=False, sharex=True, sharey="row")
    for column, name in enumerate(OPERATIONS):
        for row in range(rows):
            axes = panels[row][column]
            unit = ("microseconds", "bytes")[row]
            tidy(
                axes,
                name if row == 0 else "",
                x="points" if row == rows - 1 else "",
                y=f"{unit} a point" if column == 0 else "",
            )
            logarithmic(axes)
            for (operation_name, backend), of_case in (seconds, memory)[row].items():
                if operation_name != name:
                    continue
                scale = (1e6, 1)[row]
                shown = {n: v for n, v in of_case.items() if row == 0 or v >= MIB}
                axes.plot(
                    list(shown),
                    [scale * value / size for size, value in shown.items()],
                    color=COLORS[names.index(backend) % len(COLORS)],
                    marker="o",
                    markersize=3.5,
                    linewidth=1.5,
                    linestyle="--" if backend == "auto" else "-",
                    zorder=3 if backend == "auto" else 2,
                )
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=COLORS[i % len(COLORS)],
            marker="o",
            markersize=3.5,
            label=name,
            linestyle="--" if name == "auto" else "-",
        )
        for i, name in enumerate(names)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(names), fontsize=9, frameon=False
    )


if __name__ == "__main__":
    main()
