"""Command-line arguments that the training programs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def number(
    kind: Callable[[str], float], low: float, high: float = float("inf")
) -> Callable[[str], float]:
    """An argument's type: a number from ``low`` to ``high``."""

    def convert(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            limit = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"is {text}, expected {limit}")
        return value

    convert.__name__ = getattr(kind, "__name__", "number")  # argparse's messages name it
    return convert


def add_training_arguments(parser: Parser, *, models: Sequence[str], out: str) -> None:
    """Add how to train, how to augment, on what machine, and where to write.

    ``--epochs`` and ``--label-smoothing`` are ``None`` where they are not given: what is good
    depends on the data set.

    Args:
        parser: Gets three groups of arguments.
        models: Names that ``--model`` takes; the last one is the default.
        out: Default output folder.
    """

    def add(group: Any, name: str, type: Any, default: Any, help: str, **options: Any) -> None:
        if default is not None:
            help += f" ({default})"
        group.add_argument(name, type=type, default=default, help=help, **options)

    def switch(group: Any, name: str, default: bool, help: str) -> None:
        text = f"{help} ({'on' if default else 'off'})"
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=text)

    count, seeds = number(int, 1), number(int, 0)
    group = parser.add_argument_group("network and training")
    add(group, "--model", str, models[-1], "network: " + ", ".join(models),
        choices=models, metavar="NAME")  # fmt: skip
    add(group, "--epochs", count, None, "how often each training cloud is seen", metavar="N")
    add(group, "--batch-size", count, None, "clouds a step and device", metavar="N")
    add(group, "--lr", number(float, 0), 2e-3,
        "highest learning rate of AdamW: a line up to it, a cosine down", metavar="X")  # fmt: skip
    add(group, "--weight-decay", number(float, 0), 0.05, "of matrices only", metavar="X")
    add(group, "--label-smoothing", number(float, 0, 1), None,
        "part of the target that is spread over all classes", metavar="X")  # fmt: skip
    add(group, "--val-fraction", number(float, 0, 0.9), 0.0,
        "part of the training clouds held out for validation", metavar="X")  # fmt: skip
    add(group, "--seed", seeds, 0, "same seed, same result on the same machine", metavar="N")
    add(group, "--seeds", count, 1,
        "train N times, from --seed on, and report mean and spread", metavar="N")  # fmt: skip

    group = parser.add_argument_group("augmentation")
    switch(group, "--mirror", True, "mirror the cloud along its first axis, every other time")
    switch(group, "--scale", True, "stretch each axis by 0.8 to 1.25")
    switch(group, "--translate", True, "move the cloud by up to 0.1 along each axis")
    switch(group, "--jitter", True, "move every point by up to 0.01 along each axis")
    switch(group, "--rotate", False, "turn the cloud about its up axis by any angle")

    group = parser.add_argument_group("machine and output")
    add(group, "--accelerator", str, "auto", "auto, cpu, gpu, ...", metavar="NAME")
    add(group, "--devices", str, "auto",
        "how many, or which; several train with DistributedDataParallel", metavar="N")  # fmt: skip
    add(group, "--precision", str, "32-true", "32-true or bf16-mixed",
        choices=["32-true", "bf16-mixed"], metavar="NAME")  # fmt: skip
    add(group, "--workers", seeds, 0,
        "processes that read and augment; 0: the training process does", metavar="N")  # fmt: skip
    add(group, "--out", str, out, "output folder; an earlier run there is moved aside",
        metavar="FOLDER")  # fmt: skip
    group.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out"
    )
