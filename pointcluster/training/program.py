"""What a training program does around its runs: settings, seeds, results, errors in one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import TorchElasticEnvironment

from pointcluster._command import complain
from pointcluster.training.callbacks import TestEachEpoch
from pointcluster.training.run import RunError, RunFolder, is_first_process, let_go, write_json


def program(run: Callable[[], None], *, out: str, resume: bool) -> int:
    """Run, and turn what is wrong with settings, files or the machine into one line.

    Args:
        run: Does the work.
        out: The output folder.
        resume: Whether this run went on from an earlier one.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    try:
        run()
    except KeyboardInterrupt:
        again = shlex.join([*command_line(), *([] if resume else ["--resume"])])
        text = "interrupted; no epoch was through yet"
        if any(Path(out).rglob("last.ckpt")):
            text = f"interrupted; go on after the last whole epoch with: {again}"
        if is_first_process():
            print(text, file=sys.stderr, flush=True)
        return 130
    except (RunError, ImportError, OSError) as error:
        if is_first_process() or getattr(error, "in_one_process", False):
            complain(error)
        return 2
    finally:
        let_go(Path(out))
    return 0


@contextmanager
def bad_input() -> Iterator[None]:
    """Marks what is wrong with settings or files, which is told in one line."""
    try:
        yield
    except ValueError as error:
        raise RunError(error) from error


FREE = ("resume", "out", "workers", "geometry", "accelerator")
"""Arguments of the machine that do not decide a result, and may change when a run is resumed."""
BESIDE = {"vote": "voted_accuracy", "best_test_epoch": "test_accuracy"}
"""What stands beside a result and has measures itself: the one that is summarised."""
MEASURES = ("test_accuracy", "test_mean_class_accuracy", "test_top5_accuracy", *BESIDE)
"""What is summarised over several seeds."""
DECISIVE = ("pointcluster", "torch", "torch-geometric", "lightning", "torchmetrics", "numpy")
"""Packages that decide a result."""


def begin(
    args: argparse.Namespace,
    settings: dict[str, Any],
    *,
    free: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> None:
    """Open the run's folder, in the first process, and say where an earlier run went.

    Args:
        args: The command line's, with ``out`` and ``resume``.
        settings: What else decides the result.
        free: Arguments beside :data:`FREE` that do not decide it.
        packages: Packages beside :data:`DECISIVE` whose versions are noted.

    Raises:
        RunError: There is no run to resume, or it began with other settings.
        OSError: The folder cannot be written.
    """
    if not is_first_process():
        return
    given, free = vars(args), [*FREE, *free]
    decisive = {name: value for name, value in given.items() if name not in free} | settings
    decisive["processes"] = int(os.environ.get("WORLD_SIZE", "1"))
    moved = RunFolder(args.out).open(
        decisive,
        command=command_line(),
        resume=args.resume,
        notes={
            "versions": versions([*DECISIVE, *packages]),
            "arguments": {name: given[name] for name in free if name in given},
        },
    )
    say(f"the earlier run in {args.out} is now {moved}" if moved else f"writing to {args.out}")


def seeds(args: argparse.Namespace, results: list[dict[str, Any]]) -> Iterator[tuple[int, Path]]:
    """The seeds to run, and the folder of each; of a resumed run, those that were through are read.

    What the loop's body appends to ``results`` is written to ``result.json`` of the folder::

        for seed, folder in seeds(args, results):
            results.append({"seed": seed, "test_accuracy": train(seed, folder)})

    Args:
        args: The command line's, with ``seed``, ``seeds``, ``out`` and ``resume``.
        results: Gets the results, in the order of the seeds.

    Raises:
        RunError: A result that was through cannot be read.
    """
    for seed in range(args.seed, args.seed + args.seeds):
        folder = Path(args.out) / f"seed-{seed}" if args.seeds > 1 else Path(args.out)
        if args.resume and (folder / "result.json").exists():
            results.append(_read_result(folder / "result.json"))
            continue
        yield seed, folder
        if is_first_process():
            write_json(folder / "result.json", results[-1])


def each_seed(
    args: argparse.Namespace, run: Callable[[int, Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The results of a function that is called with each of the :func:`seeds` and its folder."""
    results: list[dict[str, Any]] = []
    for seed, folder in seeds(args, results):
        results.append(run(seed, folder))
    return results


def spread(row: Mapping[str, float | None]) -> str:
    """Mean and standard deviation of shares, in percent."""
    return f"{row['mean']:.1%}" if row["std"] is None else f"{row['mean']:.1%} ± {row['std']:.1%}"


def accuracies(measured: Mapping[str, Any], of: str = "test") -> str:
    """What tests of clouds or pictures measured, in words.

    Args:
        measured: Of one test, or a summary of several.
        of: Which measures: ``"test"``, or ``"voted"``.
    """
    shares = {
        name: spread(value) if isinstance(value, Mapping) else f"{value:.1%}"
        for name, value in measured.items()
        if name.startswith(of) and name.endswith("accuracy")
    }
    overall, mean = (shares.get(f"{of}_{name}accuracy") for name in ("", "mean_class_"))
    if mean is not None:
        return f"{overall} overall, {mean} mean over classes"
    top5 = shares.get(f"{of}_top5_accuracy")
    return f"top-1 {overall}" + (f", top-5 {top5}" if top5 is not None else "")


def beside(measured: Mapping[str, Any], votes: int) -> list[str]:
    """In words, what stands beside a result or a summary: figures of votes, of the best epoch.

    Args:
        measured: Where it is in it, as ``vote``, and as ``best_test_epoch``.
        votes: How many there were.
    """
    lines = []
    if vote := measured.get("vote"):
        told = f"with {votes} votes"
        mean = "mean" in vote
        lines.append(f"{spread(vote)} overall ({told})" if mean else
                     f"{told}: {accuracies(vote, 'voted')}")  # fmt: skip
    if best := measured.get("best_test_epoch"):
        mean = "mean" in best
        lines.append(f"{spread(best)} overall ({TestEachEpoch.LABEL})" if mean else
                     f"{best['test_accuracy']:.1%} overall after epoch {best['epoch']} "
                     f"({best['label']})")  # fmt: skip
    return lines


def summarise(
    results: Sequence[dict[str, Any]], keys: Sequence[str] = MEASURES
) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation (``None`` for one seed) of what was measured.

    Args:
        results: One dictionary a run.
        keys: Which of their values, where they have them.
    """
    summary: dict[str, dict[str, float | None]] = {}
    for key in keys:
        if key in results[0]:
            values = [result[key] for result in results]
            if key in BESIDE:
                values = [value[BESIDE[key]] for value in values]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            summary[key] = {"mean": statistics.fmean(values), "std": deviation}
    return summary


def finish(args: argparse.Namespace, results: dict[str, Any], *, files: Sequence[str]) -> None:
    """Write ``results.json``, in the first process, and name what the run has left.

    How the run was started stands in it as ``command``, and how it was resumed as ``resumed_by``.

    Args:
        args: The command line's, with ``out``.
        results: Of all seeds.
        files: Patterns of the files to name.
    """
    if is_first_process():
        out = Path(args.out)
        write_json(out / "results.json", results | RunFolder(out).commands())
        for path in [each for pattern in files for each in sorted(out.rglob(pattern))]:
            say(f"  {path}")
        say(f"  {out / 'results.json'}")


def say(text: str) -> None:
    """Print a line, in the first process."""
    if is_first_process():
        print(text, flush=True)


def log(args: argparse.Namespace, text: str) -> None:
    """Print a line, in the first process, and keep it in the run's ``log.txt``."""
    if is_first_process():
        RunFolder(args.out).say(text)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of packages that decide a result.

    Args:
        names: Of the packages.
    """
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            found[name] = "not installed"
    return found


def command_line() -> list[str]:
    """How this program was started, by ``torchrun`` or without."""
    if not TorchElasticEnvironment.detect():
        return ["python", *sys.argv]
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = int(os.environ["WORLD_SIZE"]) // here
    nodes = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *nodes, "--nproc-per-node", str(here), *sys.argv]


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
    except ValueError:  # no JSON, or no text
        result = None
    if not isinstance(result, dict):
        raise RunError(f"{path} is damaged: delete it, and --resume tests that seed again")
    return result
