"""What the benchmarks share: medians of interleaved repeats, peak memory, tables, pictures."""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch_geometric

RESULTS = Path(os.path.relpath(Path(__file__).resolve().parent / "results"))
MIB = 1 << 20
MEMORY_NOTE = (
    "How far a call raised the resident memory of a child process above what it was before, result "
    "included (Linux: VmHWM, reset before each call through clear_refs, and an allocator told to "
    "give memory back at once; elsewhere: ru_maxrss). Less than 1 MiB is below what this method "
    "sees and is left out."
)
PEAK, PEAK_SIZE = "matrix product", 2048
COLORS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")


def parser(
    description: str | None, *, memory: bool = True, budget: float = 3.0
) -> argparse.ArgumentParser:
    """A parser with the options that the benchmarks of speed share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of table and picture")
    parser.add_argument("--repeats", type=int, default=7, help="most repeats of one call")
    parser.add_argument(
        "--budget",
        type=float,
        default=budget,
        metavar="S",
        help="seconds after which a slow call is not repeated further",
    )
    if memory:
        parser.add_argument(
            "--memory",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="measure peak memory, too",
        )
    return parser


def machine() -> str:
    """One line on what the figures were measured with."""
    extensions = ("torch_cluster", "torch_scatter", "pyg_lib", "numba")
    here = {name: importlib.util.find_spec(name) is not None for name in extensions}
    named = {
        flag: ", ".join(name.replace("_", "-") for name in here if here[name] == flag)
        for flag in (True, False)
    }
    return (
        f"{os.cpu_count()} CPU cores ({_processor()}), {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, PyTorch Geometric "
        f"{torch_geometric.__version__}; installed: {named[True] or 'no extension'}; "
        f"not installed: {named[False] or 'none'}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def medians(
    calls: Mapping[Any, Callable[[], Any]], *, repeats: int, budget: float
) -> dict[Any, float]:
    """Median seconds of each call.

    The calls take turns, so that what slows the machine down for a while slows all of them. The
    first round warms up and decides how often a call fits into the budget. It counts for nothing
    but for the calls that exceed the budget at once, which are not repeated.
    """
    wanted, times = {}, {}
    for name, call in calls.items():
        first = _seconds(call)
        wanted[name] = 0 if first > budget else min(repeats, max(1, int(budget / max(first, 1e-9))))
        times[name] = [] if wanted[name] else [first]
    for turn in range(max(wanted.values(), default=0)):
        for name, call in calls.items():
            if turn < wanted[name]:
                times[name].append(_seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def medians_and_peak(
    calls: Mapping[Any, Callable[[], Any]],
    *,
    repeats: int,
    budget: float,
    size: int = PEAK_SIZE,
) -> tuple[dict[Any, float], float]:
    """Median seconds of each call, and the GFLOP/s of a matrix product that took turns with them.

    What a machine gives changes from hour to hour where others share it: the product, of two
    float32 matrices of `size` rows and columns, says how much it gave.
    """
    a, b = torch.rand(2, size, size)
    seconds = medians({**calls, PEAK: lambda: a @ b}, repeats=repeats, budget=budget)
    return seconds, 2e-9 * size**3 / seconds.pop(PEAK)


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# Memory ------------------------------------------------------------------------------------------


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a fresh process, whose memory nothing else has touched."""
    with _returning_allocator():
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(function, *arguments).result()


@contextmanager
def _returning_allocator() -> Iterator[None]:
    """Let glibc in child processes keep no freed memory: it would hide the next peak."""
    settings = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def peak_memory(call: Callable[[], Any]) -> int:
    """Bytes by which a call raises this process' resident memory at its highest."""
    gc.collect()
    with suppress(AttributeError, OSError):  # glibc: what was freed before is not there any more
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is resident now
        before = _status("VmHWM")
        result = call()
        peak = _status("VmHWM")
    except OSError:  # no Linux: the peak since the process began, which only ever rises
        before = _ru_maxrss()
        result = call()
        peak = _ru_maxrss()
    del result
    return peak - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def _ru_maxrss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Work ---------------------------------------------------------------------------------------------


def flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products of a call, two for a multiply and add.

    Counted by torch's FlopCounterMode, which does not know products that add in place.
    """
    from torch.utils.flop_counter import FlopCounterMode

    def in_place(total: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:
        return 2 * a[-2] * a[-1] * b[-1] * (a[0] if len(a) == 3 else 1)

    known = {torch.ops.aten.addmm_: in_place, torch.ops.aten.baddbmm_: in_place}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        call()
    return counter.get_total_flops()


# Tables and pictures -----------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """Three digits that matter, or a dash."""
    if value is None:
        return "–"
    if value >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:#.{digits}g}".rstrip(".")
    return text + unit


def write(path: Path, text: str) -> None:
    """Write text under a temporary name beside the file, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def page(title: str, parts: Sequence[str]) -> str:
    """A page of results."""
    return "\n\n".join([f"# {title}", f"Measured on {machine()}.", *parts]) + "\n"


def report(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of results and print it."""
    text = page(title, parts)
    write(path, text)
    print(text, flush=True)


def picture(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """Draw on a Matplotlib figure, without a display, and save it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.stem + ".tmp.png")
    figure.savefig(temporary, dpi=120)
    os.replace(temporary, path)


def logarithmic(axes: Any) -> None:
    """Logarithmic axes with few, plain numbers beside their ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    for each, steps in ((axes.xaxis, (1,)), (axes.yaxis, (1, 2, 5))):
        each.set_major_locator(LogLocator(subs=steps, numticks=9))
        each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}"))
        each.set_minor_locator(LogLocator(subs=()))


def tidy(axes: Any, title: str, *, x: str = "", y: str = "") -> None:
    """Titles and a light grid for one panel of a picture."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
