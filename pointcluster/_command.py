"""What all programs do alike: read a command line, and say what is wrong in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line.

    Args:
        doc: A program's docstring: its first paragraph describes it, the others end the help.
        options: Of argparse's parser.
    """

    def __init__(self, *, doc: str | None = None, **options: Any) -> None:
        if doc is not None:
            description, _, epilog = doc.partition("\n\n")
            options = {"description": description, "epilog": epilog} | options
            options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(**options)

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


def complain(error: BaseException | str) -> int:
    """Print what is wrong in one line; of a file that the system refuses, its name and why.

    Returns:
        The exit status, 2.
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    print("error:", " ".join(text.split()), file=sys.stderr, flush=True)
    return 2
