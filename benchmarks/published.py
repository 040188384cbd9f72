"""The image networks beside the published code: same weights, same answers, time and memory.

With `--published DIR`, a checkout of the published implementation (its `models/context_cluster.py`;
it needs `pip install einops`, its imports of timm are answered by small stand-ins), both are built,
given the same weights, checked to agree in float64 on 224 x 224 and 256 x 192, and timed in turn in
one process: inference and a training step (forward and backward). Memory is the highest that a
training step adds, each network in a fresh process. Without it, ours alone. The peak is that of a
float32 product of two square matrices, measured in turn with the networks; the share counts the
published code's floating-point operations (our own where there is no checkout), three times as many
for training. Memory is measured on the CPU alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import flops, in_child, medians, number, parser, peak_memory, report, table
from torch import Tensor, nn

from pointcluster.models import create_model, list_models

PEAK = "matrix product"
BARS = {  # what to reach beside the published code: inference, training
    "coc_tiny": (2.2, 1.8),
    "coc_tiny_plain": (3.3, 3.0),
    "coc_small": (1.3, 1.25),
    "coc_medium": (1.3, 1.25),
}


def main() -> None:
    args = parse_arguments()
    device = torch.device(args.device)
    published = None if args.published is None else published_code(args.published)
    rows, notes = [], []
    for name in args.models:
        ours = create_model(name).to(device)
        others: dict[str, nn.Module] = {}
        if published is not None:
            other = getattr(published, name)().to(device)
            randomise(other)
            ours.load_published(other.state_dict())
            notes.append(
                f"{name}: logits differ by at most {difference(name, other):.1e} in float64"
            )
            others["published"] = other
        if args.deit and name == "coc_tiny":
            import timm

            others["deit_tiny"] = timm.create_model("deit_tiny_patch16_224").to(device)
        rows += compare(args, name, {"ours": ours, **others}, device)
    header = [
        "network",
        "what",
        "ours /s",
        "other /s",
        "ratio",
        "share of peak",
        "memory",
        "other",
        "ratio",
    ]
    lines = [*explanation(args), table(header, rows), *notes]
    report(args.out / "published.md", "The image networks beside the published code", lines)


def explanation(args: argparse.Namespace) -> list[str]:
    """What the page says of its numbers."""
    whose = "our own network's" if args.published is None else "the published code's, for ours, too"
    memory = (
        "; memory that a training step adds, and ours as a share."
        if measures_memory(args)
        else ". Memory was not measured."
    )
    return [
        f"Batch {args.batch_size} at 224 x 224, {args.dtype}, on {args.device}.",
        "Inputs a second of ours and of the other network, how many times as fast ours is, which "
        f"share of the matrix product's peak it reaches{memory}",
        f"The operations that the share counts are {whose}.",
    ]


def measures_memory(args: argparse.Namespace) -> bool:
    """Whether memory is measured: by the process, so on the CPU alone, and in float32."""
    on_cpu: bool = torch.device(args.device).type == "cpu"
    return bool(args.memory) and on_cpu and args.dtype == "float32"


def parse_arguments() -> argparse.Namespace:
    args = parser(__doc__)
    args.add_argument("--published", type=Path, help="a checkout of the published code")
    args.add_argument(
        "--models", nargs="+", choices=list_models("coc_*"), default=list(BARS), metavar="NAME"
    )
    args.add_argument("--batch-size", type=int, default=8)
    args.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args.add_argument("--deit", action="store_true", help="time timm's deit_tiny_patch16_224, too")
    return args.parse_args()


def compare(
    args: argparse.Namespace, name: str, models: dict[str, nn.Module], device: torch.device
) -> list[list[str]]:
    images = torch.randn(args.batch_size, 3, 224, 224, device=device)
    size = 2048 if device.type == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device)
    half = args.dtype == "bfloat16"
    work = flops(lambda: models.get("published", models["ours"]).eval()(images[:1])) / 1e9
    rows = []
    for what, run in [("inference", infer), ("training", train)]:
        calls: dict[Any, Callable[[], Any]] = {PEAK: lambda: wait(a @ b)}
        for key, model in models.items():
            calls[key] = lambda model=model, run=run: run(model, images, half)
        seconds = medians(calls, repeats=args.repeats, budget=args.budget)
        peak = 2 * size**3 / seconds.pop(PEAK) / 1e9
        ours = seconds["ours"]
        times = 1 if what == "inference" else 3
        share = work * args.batch_size * times / ours / peak
        for key in [key for key in models if key != "ours"] or [None]:
            other = seconds.get(key)
            memory = [None, None]
            if what == "training" and key in (None, "published") and measures_memory(args):
                memory = [
                    in_child(step_memory, name, args.published if which else None, args.batch_size)
                    for which in range(1 if key is None else 2)
                ] + [None]
            rows.append(
                [
                    f"{name} and {key}" if key else name,
                    what,
                    number(args.batch_size / ours),
                    number(other and args.batch_size / other),
                    number(other and other / ours),
                    number(share),
                    number(memory[0] and memory[0] / 2**20, " MiB"),
                    number(memory[1] and memory[1] / 2**20, " MiB"),
                    number(memory[0] / memory[1] if memory[0] and memory[1] else None),
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    return rows


def infer(model: nn.Module, images: Tensor, half: bool) -> Tensor:
    model.eval()
    with torch.inference_mode(), precision(images, half):
        return wait(model(images))


def train(model: nn.Module, images: Tensor, half: bool) -> None:
    model.train()
    with precision(images, half):
        loss = model(images).logsumexp(dim=1).sum()
    loss.backward()
    model.zero_grad()
    wait(loss)


def precision(images: Tensor, half: bool) -> Any:
    return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half)


def wait(x: Tensor) -> Tensor:
    if x.is_cuda:
        torch.cuda.synchronize()
    return x


def step_memory(name: str, published: Path | None, batch_size: int) -> int:
    """Bytes that a training step adds at its highest; runs in a process of its own."""
    model = create_model(name) if published is None else getattr(published_code(published), name)()
    images = torch.randn(batch_size, 3, 224, 224)
    return peak_memory(lambda: train(model, images, False))


def randomise(model: nn.Module) -> None:
    """Weights with which every branch counts; the initial scales of 1e-5 would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator).to(value.device)
        value.data = 0.5 + noise / 10 if "layer_scale" in name else value.data + noise / 20


def difference(name: str, other: nn.Module) -> float:
    """How far the logits of both are apart, in float64."""
    import copy

    other = copy.deepcopy(other).double().eval()
    ours = create_model(name).to(next(other.parameters()))
    ours.load_published(other.state_dict())
    worst = 0.0
    # Of these sizes the published code takes those that its regions divide.
    for size in [(224, 224)] if name == "coc_tiny2" else [(224, 224), (256, 192)]:
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        images = images.to(next(other.parameters()))
        with torch.no_grad():
            worst = max(worst, (ours.eval()(images) - other(images)).abs().max().item())
    if worst > 1e-5:
        raise SystemExit(f"{name}: the answers differ by {worst}")
    return worst


def published_code(folder: Path) -> types.ModuleType:
    """The published implementation's module, with stand-ins for what it wants of an old timm."""
    file = folder / "models" / "context_cluster.py"
    if not file.is_file():
        raise SystemExit(f"{file} is not there: --published takes a checkout of the published code")
    if importlib.util.find_spec("einops") is None:
        raise SystemExit("the published code needs einops: pip install einops")

    class DropPath(nn.Identity):
        def __init__(self, _: float = 0.0) -> None:
            super().__init__()

    def pair(x: Any) -> Any:
        return x if isinstance(x, tuple) else (x, x)

    stand_ins: dict[str, dict[str, Any]] = {
        "timm": {},
        "timm.data": {"IMAGENET_DEFAULT_MEAN": (), "IMAGENET_DEFAULT_STD": ()},
        "timm.models": {},
        "timm.models.layers": {"DropPath": DropPath, "trunc_normal_": nn.init.trunc_normal_},
        "timm.models.layers.helpers": {"to_2tuple": pair},
        "timm.models.registry": {"register_model": lambda function: function},
    }
    before = {name: sys.modules.get(name) for name in stand_ins}
    spec = importlib.util.spec_from_file_location("published_context_cluster", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        for name, names in stand_ins.items():
            stand_in = types.ModuleType(name)
            vars(stand_in).update(names)
            sys.modules[name] = stand_in
        with contextlib.redirect_stdout(io.StringIO()):
            spec.loader.exec_module(module)
    finally:
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
    return module


if __name__ == "__main__":
    main()
