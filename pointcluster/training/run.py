"""The folder that a training run leaves."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from pointcluster.files import PART, write_whole

WAIT = 5.0
"""Seconds that a run waits for another that has just been ended to leave its folder."""


class RunError(ValueError):
    """A run cannot start or go on, for a reason that lies in its settings or files."""

    in_one_process = False
    """Whether other processes of the run do not meet it, so that the one that does must tell."""


class DivergedError(RunError):
    """The loss of a run is no finite number, in this process at least."""

    in_one_process = True


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes, under ``torchrun`` or alone."""
    return getattr(rank_zero_only, "rank", 0) == 0


class RunFolder:
    """Prepares, and reads back, the one folder of a run.

    A fresh run never overwrites an earlier one: that is moved to ``<folder>.1``, ``.2`` and so on.
    A resumed run must have the settings it began with, and loses what was half written when it was
    killed.

    Args:
        path: The folder; it is made where it is missing.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.metrics = self.path / "metrics.csv"
        self.command = self.path / "command.txt"
        self.log = self.path / "log.txt"

    def open(
        self,
        settings: dict[str, Any],
        *,
        command: Sequence[str],
        resume: bool = False,
        notes: dict[str, Any] | None = None,
    ) -> str | None:
        """Begin a fresh run, or check that the one in the folder can go on.

        Args:
            settings: What decides the result, as plain values; written to ``config.json``.
            command: How the run was started or resumed; a line of ``command.txt``.
            resume: Go on with the run in the folder.
            notes: What else is known of the run and may change when it is resumed, such as the
                versions of libraries; written to ``config.json`` as ``notes``.

        Returns:
            Where an earlier run was moved, if there was one.

        Raises:
            RunError: There is no run to resume, or it began with other settings; another process
                trains in the folder; or an earlier run lies in the current folder, which cannot
                be moved.
            OSError: The folder cannot be written.
        """
        hold(self.path)
        if resume:
            self._check_settings(settings)
            self.check_writable()
            for half in self.path.rglob(f"{PART}*"):  # of what was written as the run was killed
                half.unlink(missing_ok=True)
            with open(self.command, "a") as file:
                file.write(shlex.join(command) + "\n")
            return None
        moved = None
        # without a checkpoint there is nothing to keep
        if self.config.exists() and any(self.path.rglob("last.ckpt")):
            if Path.cwd().is_relative_to(self.path.resolve()):
                raise RunError(
                    f"--out {self.path} holds an earlier run, and you are in that folder, which "
                    "cannot be moved aside: give another --out, or --resume"
                )
            places = (self.path.with_name(f"{self.path.name}.{i}") for i in itertools.count(1))
            moved = str(next(place for place in places if not place.exists()))
            os.rename(self.path, moved)
        self.check_writable()
        write_json(self.config, settings | ({"notes": notes} if notes else {}))
        self.command.write_text(shlex.join(command) + "\n")
        self.log.unlink(missing_ok=True)  # of a run that got nowhere
        return moved

    def commands(self) -> dict[str, Any]:
        """How the run was started and, in their order, resumed, as ``command.txt`` has it."""
        if not self.command.exists():
            return {}
        first, *later = self.command.read_text().splitlines() or [""]
        return {"command": first} | ({"resumed_by": later} if later else {})

    def _check_settings(self, settings: dict[str, Any]) -> None:
        if not self.config.exists():
            raise RunError(f"--resume: {self.path} holds no run (no {self.config.name})")
        try:
            began = json.loads(self.config.read_text())
        except ValueError as error:  # no JSON, or no text
            raise RunError(f"{self.config} is damaged: {error}") from error
        if not isinstance(began, dict):
            raise RunError(f"{self.config} is damaged: it is no object of settings")
        differ = [
            f"{name} was {began.get(name)!r} and is now {settings.get(name)!r}"
            for name in sorted((began.keys() | settings.keys()) - {"notes"})
            if began.get(name) != json.loads(json.dumps(settings.get(name)))
        ]
        if differ:
            raise RunError(f"--resume: {self.path} began with other settings: {'; '.join(differ)}")

    def say(self, text: str) -> None:
        """Print a line, and keep it in ``log.txt``."""
        print(text, flush=True)
        with open(self.log, "a") as file:
            file.write(text + "\n")

    def check_writable(self) -> None:
        """Make the folder and write to it, so that a run does not fail after its first epoch."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise OSError(f"cannot write to the output folder {self.path}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue())


def write_confusion(path: Path, counts: Tensor, classes: Sequence[str]) -> None:
    """Write counts of true classes, a row each, taken for others, a column each, as CSV."""
    rows = zip(classes, counts.tolist(), strict=True)
    write_table(path, [["true \\ predicted", *classes], *([name, *row] for name, row in rows)])


_held: dict[Path, FileLock] = {}


def hold(path: Path) -> None:
    """Keep other processes from a run's folder, as long as this one lives or until it lets go.

    The lock lies beside the folder, as an earlier run's folder is moved.

    Raises:
        RunError: Another process trains there.
    """
    place = path.resolve()
    if place in _held:
        return
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=WAIT)
    except NotImplementedError:  # a system of files without locks
        return
    except OSError as error:
        if not isinstance(error, Timeout):
            raise OSError(f"cannot write to the output folder {path}: {error}") from error
        raise RunError(
            f"--out {path} is another run's, which still goes on: give another --out, or wait"
        ) from None
    _held[place] = lock


def let_go(path: Path) -> None:
    """Give a run's folder free again."""
    lock = _held.pop(path.resolve(), None)
    if lock is not None:
        lock.release()
