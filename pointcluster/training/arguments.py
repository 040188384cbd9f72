"""Command-line arguments that the training programs share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def number(
    kind: Callable[[str], float], low: float, high: float = float("inf")
) -> Callable[[str], float]:
    """An argument's type: a finite number from ``low`` to ``high``."""

    def convert(text: str) -> float:
        value = kind(text)
        if not low <= value <= high or value == float("inf"):
            limit = f"from {low} to {high}"
            if high == float("inf"):
                limit = f"at least {low}" if value < low else "a finite number"
            raise argparse.ArgumentTypeError(f"is {text}, expected {limit}")
        return value

    convert.__name__ = getattr(kind, "__name__", "number")  # argparse's messages name it
    return convert


def nonempty(text: str) -> str:
    """An argument's type: a path, which an unset variable of the shell is not."""
    if not text:
        raise argparse.ArgumentTypeError("is empty, expected a path")
    return text


def processes(devices: str) -> int:
    """How many processes will train, as far as the environment and ``--devices`` say it."""
    if (world := os.environ.get("WORLD_SIZE", "")).isdigit():
        return max(1, int(world))
    return max(1, int(devices)) if devices.isdigit() else 1


def add_training_arguments(parser: Parser, *, models: Sequence[str], out: str) -> None:
    """Add how to train on clouds, how to augment, on what machine, and where to write.

    ``--epochs`` and ``--label-smoothing`` are ``None`` where they are not given: what is good
    depends on the data set.

    Args:
        parser: Gets three groups of arguments.
        models: Names that ``--model`` takes; the last one is the default.
        out: Default output folder.
    """
    count = number(int, 1)
    group = parser.add_argument_group("network and training")
    _add(group, "--model", str, models[-1], "network: " + ", ".join(models),
         choices=models, metavar="NAME")  # fmt: skip
    _add(group, "--epochs", count, None, "how often each training cloud is seen", metavar="N")
    _add(group, "--batch-size", count, None, "clouds a step and device", metavar="N")
    _add(group, "--lr", number(float, 0, 1000), 2e-3,
         "highest learning rate of AdamW: a line up to it, a cosine down", metavar="X")  # fmt: skip
    _add(group, "--weight-decay", number(float, 0, 1000), 0.05, "of matrices only", metavar="X")
    _add(group, "--label-smoothing", number(float, 0, 1), None,
         "part of the target that is spread over all classes", metavar="X")  # fmt: skip
    _add(group, "--val-fraction", number(float, 0, 0.9), 0.0,
         "part of the training clouds held out for validation", metavar="X")  # fmt: skip
    _add_seeds(group)

    group = parser.add_argument_group("augmentation")
    _switch(group, "--mirror", True, "mirror the cloud along its first axis, every other time")
    _switch(group, "--scale", True, "stretch each axis by 0.8 to 1.25")
    _switch(group, "--translate", True, "move the cloud by up to 0.1 along each axis")
    _switch(group, "--jitter", True, "move every point by up to 0.01 along each axis")
    _switch(group, "--rotate", False, "turn the cloud about its up axis by any angle")

    group = parser.add_argument_group("machine and output")
    _add_machine(group, out=out, workers=0)
    _add_geometry(group)


def add_machine_arguments(parser: Parser, *, out: str, geometry: bool = False) -> None:
    """Add the seeds, on what machine to run, and where to write.

    ``--workers`` is ``None`` where it is not given.

    Args:
        parser: Gets a group of arguments.
        out: Default output folder.
        geometry: Also add who searches neighbours, of clouds.
    """
    group = parser.add_argument_group("machine and output")
    _add_seeds(group)
    _add_machine(group, out=out, workers=None)
    if geometry:
        _add_geometry(group)


def _add_seeds(group: Any) -> None:
    seeds, count = number(int, 0, 2**63 - 1), number(int, 1)
    _add(group, "--seed", seeds, 0, "same seed, same result on the same machine", metavar="N")
    _add(group, "--seeds", count, 1,
         "train N times, from --seed on, and report mean and spread", metavar="N")  # fmt: skip


def _add_machine(group: Any, *, out: str, workers: int | None) -> None:
    _add(group, "--accelerator", str, "auto", "auto, cpu, gpu, ...", metavar="NAME")
    _add(group, "--devices", str, "auto",
         "how many, or which; several train with DistributedDataParallel", metavar="N")  # fmt: skip
    _add(group, "--precision", str, "32-true", "32-true, bf16-mixed or 16-mixed",
         choices=["32-true", "bf16-mixed", "16-mixed"], metavar="NAME")  # fmt: skip
    _add(group, "--workers", number(int, 0), workers,
         "processes that read and augment; 0: the training process does", metavar="N")  # fmt: skip
    _add(group, "--out", nonempty, out, "output folder; an earlier run there is moved aside",
         metavar="FOLDER")  # fmt: skip
    group.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out"
    )


def _add_geometry(group: Any) -> None:
    _add(group, "--geometry", str, "auto",
         "who searches neighbours, with the same result: the loader, in its workers; the step; "
         "auto: the loader where there are workers",
         choices=["auto", "loader", "step"], metavar="NAME")  # fmt: skip


def _add(group: Any, name: str, type: Any, default: Any, help: str, **options: Any) -> None:
    if default is not None:
        help += f" ({default})"
    group.add_argument(name, type=type, default=default, help=help, **options)


def _switch(group: Any, name: str, default: bool, help: str) -> None:
    text = f"{help} ({'on' if default else 'off'})"
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)
