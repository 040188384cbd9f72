"""Time and peak memory of a context cluster against a plain implementation that broadcasts.

The plain one follows the layer's four equations step by step and builds, for the similarities, the
sums and the way back, tensors of regions x centres x points x channels. Both take the same weights
and the same geometry, so the operator alone is measured. Before anything is timed, both must give
the same answer and the same gradients in float64. `--full` adds larger batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import (
    COLORS,
    MEMORY_NOTE,
    MIB,
    in_child,
    logarithmic,
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

from pointcluster.geometry import ClusterGeometry, cluster_geometry
from pointcluster.nn import ContextCluster

CLOUD = 1024
SIZES, FULL_SIZES = [1024, 4096, 16_384], [1024, 4096, 16_384, 65_536, 262_144]
AGREE = 1e-9
"""Largest difference allowed in float64, as a share of the largest value."""
KINDS, PASSES = ("uniform", "ragged"), ("forward", "forward and backward")
Figures = dict[tuple[str, str, str], dict[int, float]]
"""Of (clouds, pass, implementation), by the number of points."""


def plain(layer: ContextCluster, x: Tensor, geometry: ClusterGeometry) -> Tensor:
    r"""The layer's output with everything laid out: propose, assign, aggregate, dispatch.

    Regions are rows, padded to the longest. A letter is an axis: R regions, M centres, P points,
    H heads, c channels a head.
    """
    heads, regions = layer.heads, geometry.regions
    m, ptr = regions.num_centers, regions.starts(len(x))
    order = torch.arange(len(x)) if geometry.order is None else geometry.order
    sizes, start = ptr.diff(), ptr[:-1]
    slot = torch.arange(int(sizes.max()))
    real = slot < sizes[:, None]  # [R, P]
    place = (start[:, None] + slot).clamp(max=len(x) - 1)

    fv = layer.fv(x[order])
    f, v = fv[place].view(*place.shape, 2, heads, -1).unbind(2)  # [R, P, H, c]
    # Point by point in storage order: centres that are the mean of the same points are then equal
    # to the last bit, and of equally similar centres the first is taken.
    weight = regions.counting(fv.dtype) / regions.filled[..., None]
    grouping, slots = (regions.group + start[:, None, None]).flatten(0, 1).sort(dim=1)
    weight = weight.flatten(0, 1).gather(1, slots)
    center = (fv[grouping] * weight[..., None]).sum(dim=1)
    c, g = center.view(-1, m, 2, heads, f.size(-1)).unbind(2)  # [R, M, H, c]

    product = f[:, None] * c[:, :, None]  # [R, M, P, H, c]
    length = f.norm(dim=-1)[:, None] * c.norm(dim=-1)[:, :, None]
    s = torch.sigmoid(layer.beta + layer.alpha * product.sum(dim=-1) / length)  # [R, M, P, H]
    own = torch.zeros_like(s).scatter(1, s.argmax(dim=1, keepdim=True), 1.0)
    s = s * own * real[:, None, :, None]

    gathered = (s[..., None] * v[:, None]).sum(dim=2)  # of [R, M, P, H, c]
    h = (g + gathered) / (1 + s.sum(dim=2)[..., None])
    y = (s[..., None] * h[:, :, None]).sum(dim=1)  # of [R, M, P, H, c]
    out = torch.empty_like(x).to(fv.dtype)
    out[order] = layer.proj(y[real].flatten(1))
    return out


def main() -> None:
    args = parse_arguments()
    seconds: Figures = {}
    worst, reached = 0.0, []
    for size in args.sizes:
        for kind in KINDS:
            worst = max(worst, disagreement(kind, size, args))
            if worst > AGREE:
                raise SystemExit(
                    f"error: at {size:,} points ({kind}) the implementations differ "
                    f"by {worst:.1e} of the largest value; {AGREE:g} is rounding"
                )
        calls = {case: prepare(*case, size, args) for case in cases()}
        took, peak = medians_and_peak(calls, repeats=args.repeats, budget=args.budget)
        reached.append(peak)
        for case, value in took.items():
            seconds.setdefault(case, {})[size] = value
    memory = in_child(peaks, args) if args.memory else {}
    report(args.out / "layer.md", "The layer", page(args, seconds, memory, worst, reached))
    picture(args.out / "layer.png", lambda figure: draw(figure, seconds, memory), size=(10, 6.2))


def parse_arguments() -> argparse.Namespace:
    args = parser(__doc__, budget=1.0)
    args.add_argument("--full", action="store_true", help=f"up to {FULL_SIZES[-1]:,} points")
    args.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help=f"points of the batch, in clouds of {CLOUD:,} or, ragged, about as many; "
        f"by default up to {SIZES[-1]:,}",
    )
    args.add_argument("--channels", type=int, default=96, metavar="C", help="channels")
    args.add_argument("--heads", type=int, default=4, metavar="H", help="heads")
    args.add_argument("--head-channels", type=int, default=24, metavar="C", help="channels a head")
    args.add_argument("--centers", type=int, default=4, metavar="M", help="centres a region")
    args.add_argument("--region-size", type=int, default=32, metavar="P", help="points a region")
    args = args.parse_args()
    args.sizes = sorted(args.sizes or (FULL_SIZES if args.full else SIZES))
    return args


def cases() -> list[tuple[str, str, str]]:
    return [(kind, way, name) for kind in KINDS for way in PASSES for name in ("layer", "plain")]


def clouds_of(kind: str, size: int) -> Tensor:
    """The cloud index of `size` points: clouds of 1,024, or half to one and a half times that."""
    count = max(1, size // CLOUD)
    cloud = torch.arange(size) * count // size
    if kind == "uniform" or size < 2 * CLOUD:
        return cloud if kind == "uniform" else torch.zeros_like(cloud[: size - 5])
    generator = torch.Generator().manual_seed(size)
    share = 0.5 + torch.rand(count, generator=generator)
    ends = (share.cumsum(0) / share.sum() * size).round().long()
    return torch.bucketize(torch.arange(size), ends[:-1], right=True)


def setting(
    kind: str, size: int, args: argparse.Namespace, dtype: torch.dtype
) -> tuple[ContextCluster, Tensor, ClusterGeometry]:
    """A layer, features and geometry, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    batch = clouds_of(kind, size)
    pos = torch.rand(len(batch), 3, generator=generator, dtype=torch.float64).to(dtype)
    x = torch.randn(len(batch), args.channels, generator=generator, dtype=torch.float64).to(dtype)
    torch.manual_seed(0)
    layer = ContextCluster(
        args.channels,
        heads=args.heads,
        head_channels=args.head_channels,
        num_centers=args.centers,
        region_size=args.region_size,
    ).to(dtype)
    geometry = cluster_geometry(
        pos, batch, num_centers=args.centers, k=layer.k, region_size=args.region_size
    )
    if (geometry.regions.size is None) != (kind == "ragged"):
        raise RuntimeError(f"{size:,} points: the regions of the {kind} batch are not {kind}")
    return layer, x, geometry


def prepare(
    kind: str, way: str, name: str, size: int, args: argparse.Namespace
) -> Callable[[], Any]:
    """The call to measure."""
    layer, x, geometry = setting(kind, size, args, torch.float32)
    apply = layer if name == "layer" else lambda x, geometry: plain(layer, x, geometry)

    def forward() -> Tensor:
        with torch.no_grad():
            return apply(x, geometry)

    def forward_and_backward() -> None:
        leaf = x.detach().requires_grad_()
        apply(leaf, geometry).sum().backward()

    return forward if way == "forward" else forward_and_backward


def disagreement(kind: str, size: int, args: argparse.Namespace) -> float:
    """The largest difference of outputs and gradients, as a share of the largest value."""
    layer, x, geometry = setting(kind, size, args, torch.float64)
    found = []
    for apply in (layer, lambda x, geometry: plain(layer, x, geometry)):
        layer.zero_grad()
        leaf = x.detach().requires_grad_()
        y = apply(leaf, geometry)
        y.square().sum().backward()
        found.append([y.detach(), leaf.grad, *(p.grad for p in layer.parameters())])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def peaks(args: argparse.Namespace) -> Figures:
    """Peak bytes of all cases; sizes rise."""
    memory: Figures = {}
    for case in cases():
        prepare(*case, CLOUD, args)()  # loads what is loaded once
        memory[case] = {n: peak_memory(prepare(*case, n, args)) for n in args.sizes}
    return memory


def page(
    args: argparse.Namespace,
    seconds: Figures,
    memory: Figures,
    worst: float,
    reached: Sequence[float],
) -> list[str]:
    header = ["clouds, pass", *(f"{size:,}" for size in args.sizes)]
    parts = [
        f"`ContextCluster({args.channels}, heads={args.heads}, head_channels={args.head_channels}, "
        f"num_centers={args.centers}, region_size={args.region_size})` in float32, geometry worked "
        f"out before. In float64, outputs and gradients differ by {worst:.1e} of the largest value "
        "at most.",
        "## Time, in milliseconds",
        f"A float32 matrix product that took turns reached {min(reached):.0f} to "
        f"{max(reached):.0f} GFLOP/s.",
        table(header, rows_of(args.sizes, seconds, 1e3)),
        "## Time of the plain implementation as a multiple of the layer's",
        table(header, ratios_of(args.sizes, seconds)),
    ]
    if memory:
        large = {
            case: {n: value for n, value in of_case.items() if value >= MIB}
            for case, of_case in memory.items()
        }
        parts += [
            "## Peak memory, in MiB",
            MEMORY_NOTE,
            table(header, rows_of(args.sizes, large, 1 / MIB)),
            "## Peak memory of the plain implementation as a multiple of the layer's",
            table(header, ratios_of(args.sizes, large)),
        ]
    return [*parts, "![Time and peak memory over the number of points](layer.png)"]


def rows_of(sizes: Sequence[int], figures: Figures, scale: float) -> list[list[str]]:
    rows = []
    for (kind, way, name), of_case in figures.items():
        values = (of_case.get(size) for size in sizes)
        cells = [number(None if value is None else scale * value) for value in values]
        rows.append([f"{kind}, {way}: {name}", *cells])
    return rows


def ratios_of(sizes: Sequence[int], figures: Figures) -> list[list[str]]:
    rows = []
    for kind in KINDS:
        for way in PASSES:
            ours, others = figures[kind, way, "layer"], figures[kind, way, "plain"]
            both = [(others.get(size), ours.get(size)) for size in sizes]
            cells = [f"{a / b:.2f}" if a and b else "–" for a, b in both]
            rows.append([f"{kind}, {way}", *cells])
    return rows


def draw(figure: Any, seconds: Figures, memory: Figures) -> None:
    """A column a pass; time above, memory below."""
    rows = 2 if memory else 1
    panels = figure.subplots(rows, len(PASSES), squeeze=False, sharex=True, sharey="row")
    for row, (figures, scale, what) in enumerate(
        [(seconds, 1e3, "milliseconds"), (memory, 1 / MIB, "peak MiB")][:rows]
    ):
        for column, way in enumerate(PASSES):
            axes = panels[row][column]
            tidy(
                axes,
                way if row == 0 else "",
                x="points" if row == rows - 1 else "",
                y=what if column == 0 else "",
            )
            logarithmic(axes)
            for (kind, of_way, name), of_case in figures.items():
                if of_way != way:
                    continue
                shown = {n: v for n, v in of_case.items() if row == 0 or v >= MIB}
                axes.plot(
                    list(shown),
                    [scale * value for value in shown.values()],
                    color=COLORS[0 if name == "layer" else 2],
                    linestyle="-" if kind == "uniform" else "--",
                    marker="o",
                    markersize=3.5,
                    linewidth=1.5,
                    label=f"{name}, {kind}",
                )
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)


if __name__ == "__main__":
    main()
