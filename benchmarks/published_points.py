"""The paper's 3D network beside the published code: same weights, same answers, time and memory.

With `--published DIR`, a checkout of the published implementation (its
`pointcloud/models/contextcluster.py`; it needs `pip install einops`, its sampling kernel is
answered by a small stand-in that begins at the first point), both are built, given the same
weights, checked to agree in float64, and timed in turn in one process: inference and a training
step (forward and backward), with the geometry worked out in the call. Memory is the highest that a
call adds, each in a fresh process. `point_coc_small` is timed in turn with them, on the same
clouds. Without it, ours alone.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import in_child, medians, number, parser, peak_memory, report, table
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model

NAME, FAST = "pointmlp_coc", "point_coc_small"
BARS = "1.4 times as fast, a third of the memory, 15 times as many clouds a second"
"""What to reach beside the published code; the last one is the fast network's."""


class Published(nn.Module):
    """The published network, of clouds as ours takes them."""

    def __init__(self, folder: Path, num_classes: int = 15) -> None:
        super().__init__()
        self.net = published_code(folder).pointMLP_CoC(num_classes=num_classes)

    def forward(self, data: Batch) -> Tensor:
        clouds = data.pos.view(data.num_graphs, -1, 3)
        return self.net(clouds.transpose(1, 2).contiguous())


def main() -> None:
    args = parse_arguments()
    ours, fast = create_model(NAME, num_classes=15), create_model(FAST, num_classes=15)
    models: dict[str, nn.Module] = {"ours": ours, FAST: fast}
    notes = []
    if args.published is not None:
        other = Published(args.published)
        randomise(other)
        ours.load_published(other.net.state_dict())
        models["published"] = other
        notes.append(f"Logits differ by at most {difference(ours, other):.1e} in float64.")
    batch = clouds(args.batch_size, args.num_points)
    rows = []
    for what, run in (("inference", infer), ("training", train)):
        calls: dict[Any, Callable[[], Any]] = {
            key: lambda model=model, run=run: run(model, batch) for key, model in models.items()
        }
        seconds = medians(calls, repeats=args.repeats, budget=args.budget)
        memory: dict[str, int] = {}
        if args.memory:
            settings = (what, args.batch_size, args.num_points)
            memory["ours"] = in_child(added, None, *settings)
            if args.published is not None:
                memory["published"] = in_child(added, args.published, *settings)
        rows.append(row(what, args.batch_size, seconds, memory))
        print(" | ".join(rows[-1]), flush=True)
    lines = [
        f"Batch {args.batch_size} of {args.num_points} points, float32.",
        "Clouds a second of ours and of the published code, how many times as fast ours is; memory "
        f"that a call adds, and ours as a share; clouds a second of {FAST}, and how many times "
        f"those of the published code. The bars: {BARS}.",
        table(
            [
                "what",
                "ours /s",
                "published /s",
                "ratio",
                "memory",
                "published",
                "share",
                f"{FAST} /s",
                "ratio",
            ],
            rows,
        ),
        *notes,
    ]
    report(args.out / "published_points.md", "The 3D network beside the published code", lines)


def parse_arguments() -> argparse.Namespace:
    args = parser(__doc__, budget=60.0)
    args.add_argument("--published", type=Path, help="a checkout of the published code")
    args.add_argument("--batch-size", type=int, default=16, metavar="B", help="clouds a batch")
    args.add_argument(
        "--num-points",
        type=int,
        default=1024,
        metavar="N",
        help="points a cloud; the published code keeps as many anchors of any number",
    )
    return args.parse_args()


def row(what: str, clouds: int, seconds: dict[str, float], memory: dict[str, int]) -> list[str]:
    ours, other, fast = (seconds.get(key) for key in ("ours", "published", FAST))
    assert ours and fast
    least, most = memory.get("ours"), memory.get("published")
    return [
        what,
        number(clouds / ours),
        number(other and clouds / other),
        number(other and other / ours),
        number(least and least / 2**20, " MiB"),
        number(most and most / 2**20, " MiB"),
        number(least / most if least and most else None),
        number(clouds / fast),
        number(other and other / fast),
    ]


def clouds(count: int, points: int) -> Batch:
    """Random clouds in the unit ball."""
    seed = torch.Generator().manual_seed(0)
    pos = torch.randn(count, points, 3, generator=seed)
    pos = pos / pos.norm(dim=2).amax(dim=1)[:, None, None]
    return Batch.from_data_list([Data(pos=each) for each in pos])


def infer(model: nn.Module, batch: Batch) -> Tensor:
    model.eval()
    with torch.inference_mode():
        return model(batch)


def train(model: nn.Module, batch: Batch) -> None:
    model.train()
    model(batch).logsumexp(dim=1).sum().backward()
    model.zero_grad()


def added(published: Path | None, what: str, batch_size: int, num_points: int) -> int:
    """Bytes that a call adds at its highest; runs in a process of its own."""
    model = create_model(NAME, num_classes=15) if published is None else Published(published)
    batch = clouds(batch_size, num_points)
    run = {"inference": infer, "training": train}[what]
    run(model, clouds(2, num_points))  # what a process needs once
    return peak_memory(lambda: run(model, batch))


def randomise(model: nn.Module) -> None:
    """Weights and statistics with which everything counts."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and max(value.shape) == value.numel():  # no linear map
            noise = torch.randn(value.shape, generator=generator)
            value.add_((noise.abs() if "running_var" in name else noise) / 10)


def difference(ours: nn.Module, other: nn.Module) -> float:
    """How far the logits of both are apart, in float64."""
    batch = clouds(2, 1024)
    batch.pos = batch.pos.double()
    a, b = (infer(copy.deepcopy(each).double(), batch) for each in (ours, other))
    worst = (a - b).abs().max().item()
    if worst > 1e-5:
        raise SystemExit(f"{NAME}: the answers differ by {worst}")
    return worst


def sample_from_first(pos: Tensor, num: int) -> Tensor:
    """Farthest point sampling of clouds of one size (B, N, 3), beginning at each one's first."""
    from pointcluster.geometry import fps

    size, count = pos.shape[:2]
    cloud = torch.arange(size).repeat_interleave(count)
    index = fps(pos.reshape(-1, 3), num, cloud, start="first").view(size, num)
    return (index - torch.arange(size)[:, None] * count).int()


def published_code(folder: Path) -> types.ModuleType:
    """The published implementation's module, with a stand-in for its sampling kernel."""
    file = folder / "pointcloud" / "models" / "contextcluster.py"
    if not file.is_file():
        raise SystemExit(f"{file} is not there: --published takes a checkout of the published code")
    if importlib.util.find_spec("einops") is None:
        raise SystemExit("the published code needs einops: pip install einops")
    kernels = types.ModuleType("pointnet2_ops.pointnet2_utils")
    vars(kernels)["furthest_point_sample"] = sample_from_first
    stand_ins = {"pointnet2_ops": types.ModuleType("pointnet2_ops"), kernels.__name__: kernels}
    names = [*stand_ins, "model_utils"]
    before = {name: sys.modules.get(name) for name in names}
    spec = importlib.util.spec_from_file_location("published_point_cluster", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules.update(stand_ins)
        sys.path.insert(0, str(file.parent))
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
    return module


if __name__ == "__main__":
    main()
