"""Recipes: settings in a frozen dataclass, and the command-line arguments that change them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import Field, field, fields, replace
from typing import Any, TypeVar

from pointcluster.training.arguments import Parser

Recipe = TypeVar("Recipe")


def setting(default: Any, type: Any, help: str, **options: Any) -> Any:
    """A field of a recipe.

    Args:
        default: Its value where a recipe does not say.
        type: Converts the text of an argument; ``bool`` makes a pair ``--name`` and ``--no-name``.
        help: What the argument's help says.
        options: ``choices``, for argparse.
    """
    return field(default=default, metadata={"type": type, "help": help, **options})


def add_settings(parser: Parser, recipes: Mapping[str, Any]) -> None:
    """Add one argument for each setting of a recipe; ``None`` where it is not given.

    Args:
        parser: Gets a group of arguments.
        recipes: By name, all of one class; the help shows their values side by side.
    """
    group = parser.add_argument_group(
        "recipe", f"in brackets: the defaults for {' | '.join(recipes)}"
    )
    for item in fields(next(iter(recipes.values()))):
        values = list(
            dict.fromkeys(_text(getattr(recipe, item.name)) for recipe in recipes.values())
        )
        help = f"{item.metadata['help']} ({' | '.join(values)})"
        if item.metadata["type"] is bool:
            group.add_argument(
                _flag(item), action=argparse.BooleanOptionalAction, default=None, help=help
            )
            continue
        group.add_argument(
            _flag(item),
            type=item.metadata["type"],
            choices=item.metadata.get("choices"),
            metavar="NAME" if item.type == "str" else "X" if item.type == "float" else "N",
            help=help,
        )


def chosen(
    args: argparse.Namespace, base: Recipe, items: int | None = None
) -> tuple[Recipe, list[str]]:
    """A recipe with the settings that were given on the command line, and what follows from them.

    Args:
        args: The command line.
        base: What settings are where they are not given and nothing follows for them.
        items: Training items a process, if they are known: no batch is larger.

    Returns:
        The recipe, and a text for each setting that followed, such as `"--warmup-epochs 0"`.

    Raises:
        RunError: Settings that were given do not fit together.
    """
    instance: Any = base
    values = {item.name: getattr(args, item.name) for item in fields(instance)}
    given = {name: value for name, value in values.items() if value is not None}
    follow = getattr(instance, "follow", None)
    followed: dict[str, Any] = {} if follow is None else follow(given, items)
    notes = [
        f"{_flag(item)} {followed[item.name]} (not {getattr(base, item.name)})"
        for item in fields(instance)
        if item.name in followed
    ]
    return replace(instance, **given, **followed), notes


def recipe_name(name: str, recipe: Any, base: Any) -> str:
    """What results call a recipe: its name, and what differs from what the name stands for."""
    changed = []
    for item in fields(base):
        if (value := getattr(recipe, item.name)) != getattr(base, item.name):
            flag = _flag(item) if value is not False else _flag(item).replace("--", "--no-", 1)
            changed.append(flag if isinstance(value, bool) else f"{flag} {value}")
    return f"{name} with {' '.join(changed)}" if changed else name


def _flag(item: Field) -> str:
    return "--" + item.name.replace("_", "-")


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
