"""What a training program does around its run: errors in one line, Ctrl-C, versions."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pointcluster.training.fit import is_first_process
from pointcluster.training.run_folder import RunError


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
        again = shlex.join(["python", *sys.argv, *([] if resume else ["--resume"])])
        begun = any(Path(out).rglob("last.ckpt"))
        _complain(
            f"interrupted; go on after the last whole epoch with: {again}"
            if begun
            else "interrupted; no epoch was through yet"
        )
        return 130
    except (RunError, ImportError, OSError) as error:
        _complain(f"error: {error}")
        return 2
    return 0


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


def _complain(text: str) -> None:
    if is_first_process():
        print(text, file=sys.stderr, flush=True)
