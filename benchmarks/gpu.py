"""What a GPU gives: agreement with the CPU, geometry, the layer, networks, launches, trainings.

One command, under 8 minutes on one card: rows for which no time is left say so, one that fails or
takes too long says why, and the page is written row by row. It needs a checkout on `PYTHONPATH`, no
installation: torch, PyTorch Geometric, and for its parts timm (deit_tiny, the recipe of pictures)
and lightning (whole trainings). `--device cpu --small` runs all of it anywhere, to see that it
runs; what a card alone can do (CUDA graphs, compiled networks) is left out there.

Times are medians by the host's clock around calls that are waited for. `--published DIR` is a
checkout of the published code, as for `published.py`.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, number, page, report, table, write
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch, Data

from pointcluster.geometry import cluster_geometry, fps, knn
from pointcluster.models import create_model
from pointcluster.nn import ContextCluster
from pointcluster.ops import use_backend

ROOT = Path(__file__).resolve().parents[1]
MIB, TITLE = 1 << 20, "On a GPU"


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    bench, path, lines = Bench(args), args.out / "gpu.md", []
    try:
        lines += [bench.about()]
    except Exception as error:
        lines += [failure(error)]
    for part in (
        agreement, geometry, layers, clouds, images, launches, compiled, trainings,
    ):  # fmt: skip
        lines += [f"## {(part.__doc__ or '').splitlines()[0].rstrip('.')}", ""]
        found: list[Row] = []
        try:
            for row in part(bench):
                found += [row]
                lines[-1] = table(*as_text(found))
                write(path, page(TITLE, lines))
        except (Exception, SystemExit) as error:  # what was measured is worth having
            lines += [f"This part failed: {failure(error)}"]
            if args.strict:
                raise
        bench.free()
    report(path, TITLE, lines)


def failure(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def parse_arguments() -> argparse.Namespace:
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    args.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args.add_argument("--small", action="store_true", help="tiny sizes, one repeat")
    args.add_argument("--minutes", type=float, default=7.0, help="after which parts are left out")
    args.add_argument("--repeats", type=int, default=10, help="most repeats of one call")
    args.add_argument("--published", type=Path, help="a checkout of the published code")
    args.add_argument("--tf32", action="store_true", help="let float32 products use TF32")
    args.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure compiled networks, too",
    )
    args.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the examples that train, too",
    )
    args.add_argument("--strict", action="store_true", help="stop where a part fails")
    args.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    return args.parse_args()


class Bench:
    """The device, its clock, and what is asked for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.small, self.device = args, args.small, torch.device(args.device)
        self.until = time.perf_counter() + 60 * args.minutes
        self.gpu = self.device.type == "cuda"

    def size(self, large: int, small: int) -> int:
        return small if self.small else large

    def left(self) -> float:
        """Seconds."""
        return self.until - time.perf_counter()

    def row(self, name: str, cells: int, measure: Callable[[], Row], limit: float = 90) -> Row:
        """A row: what is measured within some seconds, or why it is not."""
        why = "left out, no time"
        if self.left() > 0:
            try:
                with time_limit(min(limit, self.left())):
                    return [name, *measure()]
            except (Exception, SystemExit) as error:
                if self.args.strict:
                    raise
                why = failure(error).replace("|", "/")
            self.free()
        return [f"{name}: {why}", *[None] * cells]

    def free(self) -> None:
        """Let nothing stay on the card, even after an error, which may hold what was there."""
        gc.collect()
        if self.gpu:
            with suppress(RuntimeError):  # a card that has failed says so again in the next row
                torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], Any]) -> float:
        """Median seconds of a call: twice to warm up, then so often as fits into a second or so."""
        times: list[float] = []
        for turn in range(2 + self.args.repeats):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - began)
            if self.small or (turn > 2 and sum(times[2:]) > 1.5):
                break
        return statistics.median(times[2:] or times[-1:])

    def memory(self, call: Callable[[], Any]) -> float | None:
        """MiB that a call adds at its highest."""
        if not self.gpu:
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / MIB

    def about(self) -> str:
        """The device, and what it gives for products of matrices and for copies."""
        name = torch.cuda.get_device_name(self.device) if self.gpu else platform.processor()
        n, rates = self.size(8192, 256), []
        for dtype in (torch.float32, torch.bfloat16):
            a, b = torch.rand(2, n, n, device=self.device).to(dtype)
            rate = 2e-12 * n**3 / self.seconds(lambda a=a, b=b: a @ b)
            rates.append(f"{str(dtype).removeprefix('torch.')} product {rate:.3g} TFLOP/s")
        x = torch.empty(self.size(1 << 30, 1 << 20), dtype=torch.uint8, device=self.device)
        y = torch.empty_like(x)
        rates.append(f"copy {2e-12 * len(x) / self.seconds(lambda: y.copy_(x)):.3g} TB/s")
        try:
            import triton

            version = f"triton {triton.__version__}"
        except ImportError:
            version = "no triton"
        return (
            f"Device: {name or self.device.type} (`{self.device}`), CUDA {torch.version.cuda}, "
            f"{version}. Measured here: {', '.join(rates)}"
            f"{' (TF32)' if self.args.tf32 else ''}. Sizes: {'tiny' if self.small else 'whole'}."
        )


Row = list[Any]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop what takes longer, a compilation for instance, where the system has an alarm."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took longer than {seconds:.0f} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def as_text(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """A table's head and its rows, as text."""
    head, *rest = rows
    text = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rest]
    return head, text


# Agreement ----------------------------------------------------------------------------------------


def worst(found: list[Tensor], truth: list[Tensor]) -> float:
    """The largest length of a difference, as a share of what it is a difference to.

    (In half precision a few points go to another centre, as similar but for rounding.)
    """
    return max(
        float((a.double().cpu() - b).norm() / b.norm().clamp_min(1e-9))
        for a, b in zip(found, truth, strict=True)
    )


def agreement(bench: Bench) -> Iterator[Row]:
    """Agreement with the CPU in float64: length of the difference, as a share of the whole."""
    yield ["what", "float32, output", "float32, gradients", "bfloat16, output", "its gradients"]
    for name, sizes in (("equal", [64] * 8), ("ragged", [50, 64, 7, 90]), ("large", [900, 4100])):
        batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        pos, x = torch.rand(len(batch), 3), torch.randn(len(batch), 32)
        layer = ContextCluster(32, heads=4, head_channels=24)
        region = 32 if name != "large" else None
        results = []
        for dtype, device in [
            (torch.float64, "cpu"), (torch.float32, bench.device), (torch.bfloat16, bench.device),
        ]:  # fmt: skip
            geometry = cluster_geometry(
                pos.to(device), batch.to(device), num_centers=4, k=9, region_size=region
            )
            leaf = x.to(torch.bfloat16).to(device, dtype).requires_grad_()
            one = layer.to(device, dtype)
            one.zero_grad()
            y = one(leaf, geometry)
            y.square().sum().backward()
            grads = [leaf.grad, one.fv.weight.grad, one.proj.weight.grad]
            results.append(([y.detach()], [grad.clone() for grad in grads]))
            layer = layer.to("cpu", torch.float64)
        truth, *others = results
        cells = [worst(a, b) for found in others for a, b in zip(found, truth, strict=True)]
        yield [f"layer, {name}", *cells]
    for dim in (2, 3):
        pos = torch.rand(bench.size(4000, 300), dim)
        batch = torch.arange(len(pos)) * 3 // len(pos)
        there = pos.to(bench.device), batch.to(bench.device)
        same = torch.equal(fps(*there[:1], 0.25, there[1]).cpu(), fps(pos, 0.25, batch))
        near = knn(there[0], there[0], 16, there[1], there[1]).cpu()
        same &= torch.equal(near, knn(pos, pos, 16, batch, batch))
        yield [f"searches, {dim} axes", "the same" if same else "DIFFERENT", "–", "–", "–"]


# Geometry -----------------------------------------------------------------------------------------


def geometry(bench: Bench) -> Iterator[Row]:
    """Geometry, in milliseconds."""
    yield ["search", "ours", "torch's operations"]
    cases: list[tuple[str, int, int, int]] = [
        ("farthest points", 32, 1024, 512), ("farthest points", 256, 1024, 512),
        ("farthest points", 32, 4096, 1024), ("farthest points", 1, 100_000, 1024),
        ("farthest points", 1, 1_000_000, 1024), ("nearest 16", 32, 1024, 16),
        ("nearest 24, half of them ask", 32, 1024, 24), ("nearest 16", 1, 100_000, 16),
    ]  # fmt: skip
    for what, count, size, k in cases:
        size, k = bench.size(size, min(size // 8, 500)), bench.size(k, min(k, 16))
        measure = partial(search, bench, what, count, size, k)
        yield bench.row(f"{what}: {count} x {size:,}, {k}", 2, measure)


def search(bench: Bench, what: str, count: int, size: int, k: int) -> Row:
    pos = torch.rand(count * size, 3, device=bench.device)
    sizes = [size] * count
    batch = torch.arange(count, device=bench.device).repeat_interleave(size)
    ask = slice(None, None, 2 if "half" in what else 1)
    asked = [len(range(*ask.indices(size)))] * count
    if what.startswith("farthest"):
        call = partial(fps, pos, k, batch, sizes=sizes, start="first")
    else:
        given = pos, pos[ask], k, batch, batch[ask]
        call = partial(knn, *given, sizes=sizes, query_sizes=asked)
    few = count * size <= 40_000
    plain = 1e3 * bench.seconds(partial(call, backend="torch")) if few else None
    return [1e3 * bench.seconds(call), plain]


# The layer ----------------------------------------------------------------------------------------


def layers(bench: Bench) -> Iterator[Row]:
    """The layer, 64 channels, forward and backward: milliseconds, MiB beyond its input."""
    features = "features alone, MiB"
    yield ["clouds", "ours", "MiB", "torch's operations", "MiB", features, "MiB of ours to that"]
    count, size = bench.size(64, 4), bench.size(4096, 100)
    shift = torch.randint(-size // 8, size // 8, (count,)).tolist()
    large = bench.size(1_000_000, 1000)
    cases = [
        (f"{count} of {size:,}", [size] * count, None),
        (f"{count} of about {size:,}", [size + by for by in shift], None),
        (f"the same, regions of {size // 128 or 8}", [size + by for by in shift], size // 128 or 8),
        (f"one of {large:,}", [large], None),
    ]
    for name, sizes, region in cases:
        yield bench.row(name, 6, partial(layer_of, bench, sizes, region))


def layer_of(bench: Bench, sizes: list[int], region: int | None) -> Row:
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(bench.device)
    pos = torch.rand(len(batch), 3, device=bench.device)
    layer = ContextCluster(64, heads=4, head_channels=24).to(bench.device)
    where = cluster_geometry(pos, batch, num_centers=4, k=9, region_size=region)
    x = torch.randn(len(batch), 64, device=bench.device, requires_grad=True)

    def call() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x, where).sum().backward()

    cells: Row = []
    for backend in ("auto", "torch"):
        with use_backend(backend):
            cells += [1e3 * bench.seconds(call), bench.memory(call)]
    alone = x.numel() * 4 / MIB
    return [*cells, alone, None if cells[1] is None else cells[1] / alone]


# Networks -----------------------------------------------------------------------------------------


def stepping(model: nn.Module, data: Any, target: Tensor, half: bool) -> tuple[Any, Any]:
    """A pass without gradients, and a training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    kind = target.device.type

    def answer() -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            return model(data)

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            answer()

    def train() -> None:
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(answer().float(), target).backward()
        optimizer.step()

    return infer, train


def images(bench: Bench) -> Iterator[Row]:
    """Networks of pictures, bfloat16 by autocast: pictures a second, MiB of a training step."""
    yield ["network", "batch", "inference", "training", "MiB", "one picture, ms"]
    size, batch = bench.size(224, 64), bench.size(128, 2)
    pictures = torch.randn(batch, 3, size, size, device=bench.device)
    target = torch.randint(1000, (batch,), device=bench.device)
    for name, make in networks(bench, size).items():
        yield bench.row(name, 5, partial(pictures_of, bench, make, pictures, target))


def networks(bench: Bench, size: int) -> dict[str, Callable[[], nn.Module]]:
    names = ["coc_tiny"] if bench.small else ["coc_tiny", "coc_tiny_plain", "coc_small"]
    makers: dict[str, Callable[[], nn.Module]] = {
        name: lambda name=name: create_model(name) for name in names
    }
    if bench.args.published:
        makers["published coc_tiny"] = lambda: published(bench.args.published)
    return makers | {"deit_tiny": lambda: deit(size)}


def pictures_of(
    bench: Bench, make: Callable[[], nn.Module], pictures: Tensor, target: Tensor
) -> Row:
    model = make().to(bench.device)
    infer, train = stepping(model, pictures, target, half=True)
    one, _ = stepping(model, pictures[:1], target[:1], half=True)
    cells: Row = [len(pictures) / bench.seconds(infer), len(pictures) / bench.seconds(train)]
    return [str(len(pictures)), *cells, bench.memory(train), 1e3 * bench.seconds(one)]


def compiled(bench: Bench) -> Iterator[Row]:
    """The same by a CUDA graph and by torch.compile, which are made first: seconds of that, too."""
    yield ["network", "batch", "inference", "training", "MiB", "one picture, ms", "made in, s"]
    size, batch = bench.size(224, 64), bench.size(128, 2)
    if not bench.args.compile or not bench.gpu:
        return
    pictures = torch.randn(batch, 3, size, size, device=bench.device)
    target = torch.randint(1000, (batch,), device=bench.device)
    for name in ("coc_tiny", "deit_tiny"):
        make = networks(bench, size)[name]
        given = bench, make, pictures, target
        yield bench.row(f"{name}, as a CUDA graph", 6, partial(as_a_graph, *given))
        yield bench.row(f"{name}, compiled", 6, partial(compiled_training, *given), limit=150)
    given = bench, networks(bench, size)["coc_tiny"], pictures, target
    yield bench.row("coc_tiny, compiled as a graph", 6, partial(compiled_graph, *given), limit=100)


def as_a_graph(
    bench: Bench, make: Callable[[], nn.Module], pictures: Tensor, target: Tensor
) -> Row:
    """A pass is recorded once and replayed: no compiler, and nothing left for the host to do."""
    cells, began = [], time.perf_counter()
    model = make().to(bench.device)
    for count in (len(pictures), 1):
        infer, _ = stepping(model, pictures[:count], target[:count], half=True)
        beside = torch.cuda.Stream()
        with torch.cuda.stream(beside):
            infer(), infer()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            infer()
        cells += [(graph, bench.seconds(graph.replay))]
    (_, many), (_, one) = cells
    made = time.perf_counter() - began
    return [str(len(pictures)), len(pictures) / many, None, None, 1e3 * one, made]


def compiled_training(
    bench: Bench, make: Callable[[], nn.Module], pictures: Tensor, target: Tensor
) -> Row:
    torch.compiler.reset()
    model = torch.compile(make().to(bench.device), dynamic=False)
    infer, train = stepping(model, pictures, target, half=True)
    began = time.perf_counter()
    infer(), train(), bench.wait()
    made = time.perf_counter() - began
    cells: Row = [len(pictures) / bench.seconds(infer), len(pictures) / bench.seconds(train)]
    return [str(len(pictures)), *cells, bench.memory(train), None, made]


def compiled_graph(
    bench: Bench, make: Callable[[], nn.Module], pictures: Tensor, target: Tensor
) -> Row:
    torch.compiler.reset()
    model = torch.compile(make().to(bench.device), mode="reduce-overhead", dynamic=False)
    one, _ = stepping(model, pictures[:1], target[:1], half=True)
    began = time.perf_counter()
    one(), one(), bench.wait()
    made = time.perf_counter() - began
    return ["1", None, None, None, 1e3 * bench.seconds(one), made]


def deit(size: int) -> nn.Module:
    import timm

    return timm.create_model("deit_tiny_patch16_224", img_size=size)


def published(checkout: Path) -> nn.Module:
    from published import published_code

    return published_code(checkout).coc_tiny()


def batches(bench: Bench, count: int, size: int) -> Batch:
    items = [Data(pos=torch.rand(size, 3), y=torch.tensor([i % 5])) for i in range(count)]
    return Batch.from_data_list(items).to(bench.device)


def clouds(bench: Bench) -> Iterator[Row]:
    """Networks of clouds, geometry and all, float32: clouds a second, MiB of a training step."""
    yield ["network", "clouds", "inference", "training", "MiB"]
    size = bench.size(1024, 128)
    for name in ("point_coc_tiny", "point_coc_small", "pointmlp_coc"):
        for count in (2,) if bench.small else (32, 256):
            yield bench.row(name, 4, partial(clouds_of, bench, name, count, size))


def clouds_of(bench: Bench, name: str, count: int, size: int) -> Row:
    data = batches(bench, count, size)
    model = create_model(name, num_classes=5).to(bench.device)
    infer, train = stepping(model, data, data.y, half=False)
    cells: Row = [count / bench.seconds(infer), count / bench.seconds(train)]
    return [f"{count} of {size:,}", *cells, bench.memory(train)]


# Launches -----------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Counts what is not just another view of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [r.alias_info for r in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in aliases)
        if not (view or func.namespace == "prim" or "empty" in func._schema.name):
            self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def launches(bench: Bench) -> Iterator[Row]:
    """What a step asks of the device: torch's operations, kernels launched, and waits."""
    yield ["network", "operations forward", "kernels of a training step", "waits of it"]
    for name in ("coc_tiny", "point_coc_small", "pointmlp_coc"):
        yield bench.row(name, 3, partial(launched, bench, name))


def launched(bench: Bench, name: str) -> Row:
    model = create_model(name, num_classes=5).to(bench.device)
    data: Any = torch.randn(2, 3, *[bench.size(224, 64)] * 2, device=bench.device)
    target = torch.tensor([0, 1], device=bench.device)
    if not name.startswith("coc"):
        data = batches(bench, 2, bench.size(1024, 128))
    infer, train = stepping(model, data, target, half=False)
    infer(), train()
    with Operations() as count:
        infer()
    kernels = waits = None
    if bench.gpu:
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            train()
            bench.wait()
        names = Counter(event.name for event in profile.events())
        kernels = float(sum(n for key, n in names.items() if "LaunchKernel" in key))
        waits = float(names["cudaStreamSynchronize"] + names["cudaEventSynchronize"])
    return [float(sum(count.seen.values())), kernels, waits]


# Whole trainings ----------------------------------------------------------------------------------


def trainings(bench: Bench) -> Iterator[Row]:
    """The examples, from end to end, on bundled data: seconds of a short training."""
    yield ["program", "seconds"]
    accelerator = "gpu" if bench.gpu else "cpu"
    short = ["--model", "coc_micro", "--batch-size", "8"] if bench.small else []
    programs = {
        "modelnet40": ["--epochs", "1", "--num-points", str(bench.size(1024, 64))],
        "imagenet": ["--epochs", "1", "--limit-batches", str(bench.size(100, 2)), *short],
    }
    if not bench.args.train:
        programs = {}
    for name, options in programs.items():
        command = [sys.executable, f"{ROOT}/examples/{name}.py", *options]
        command += ["--accelerator", accelerator, "--workers", "0"]
        yield bench.row(f"{name}.py {' '.join(options)}", 1, partial(trained, bench, command), 120)


def trained(bench: Bench, command: list[str]) -> Row:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--out", f"{folder}/run"], capture_output=True, text=True,
            timeout=max(1, bench.left()), env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [""]
        raise RuntimeError(last[0])
    return [time.perf_counter() - began]


if __name__ == "__main__":
    main()
