"""Command-line arguments of the training programs: settings of a recipe, and the machine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields, replace
from typing import Any, TypeVar

from pointcluster._command import Parser, nonempty, number
from pointcluster.datasets.scanobjectnn import PARTS, VARIANTS
from pointcluster.training.data import searching_collate
from pointcluster.transforms.clouds import AXES

PRECISIONS = {
    "32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed", "bf16": "bf16-mixed"
}  # fmt: skip
"""What ``--precision`` takes, and Lightning's name for it."""

Settings = TypeVar("Settings")


def add_cloud_arguments(parser: Parser, models: Sequence[str], default: str) -> None:
    """Add which network is trained on clouds, and on how many points of how many of them."""
    add = parser.add_argument_group("network and clouds").add_argument
    add("--model", choices=models, default=default, metavar="NAME",
        help=f"network: {', '.join(models)} (%(default)s)")  # fmt: skip
    add("--num-points", type=number(int, 1), default=1024, metavar="N",
        help="points a cloud that the network gets; in the test the first (%(default)s)"
        )  # fmt: skip
    add("--val-fraction", type=number(float, 0, 0.9), default=0.0, metavar="X",
        help="part of the training clouds held out for validation, the same for every seed "
        "(%(default)s)")  # fmt: skip


SCANS = ("variant", "background", "part")
"""Options of ScanObjectNN."""


def add_scan_arguments(parser: Parser, root: str) -> None:
    """Add which scans are learned: ScanObjectNN, usually in ``root``, or a folder of one's own."""
    place = parser.add_mutually_exclusive_group().add_argument
    place("--root", type=nonempty, metavar="PATH",
          help=f"ScanObjectNN: h5_files.zip, or the folder it unpacks to ({root})")  # fmt: skip
    place("--data", type=nonempty, metavar="FOLDER", help="clouds or meshes of your own, "
          "train/CLASS/* and test/CLASS/*, or CLASS/* of which a part is the test")  # fmt: skip
    add, of = parser.add_argument, "of ScanObjectNN: "
    add("--variant", choices=VARIANTS, metavar="NAME", help=of + f"{', '.join(VARIANTS)}")
    add("--background", action=argparse.BooleanOptionalAction,
        help=of + "with the points around the object (yes, but for OBJ_ONLY)")  # fmt: skip
    add("--part", choices=PARTS, metavar="NAME", help=of + f"{', '.join(PARTS)} (main_split)")
    add("--up", choices=AXES, metavar="AXIS", help="of --data: the axis that points up (y)")
    add("--columns", type=nonempty, metavar="NAMES", help="of --data: what the columns of "
        "tables are, such as 'x y z nx ny nz label'; - is one to leave out")  # fmt: skip


def checked_scans(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """End with an error where arguments are of other scans than those that are learned."""
    for name in SCANS:
        if args.data and getattr(args, name) is not None:
            parser.error(f"--{name} is of ScanObjectNN, and --data is given")
    for name in ("up", "columns"):
        if getattr(args, name) and not args.data:
            parser.error(f"--{name} is of --data, which is not given")
    args.up = args.up or "y"
    return args


def add_picture_arguments(parser: Parser) -> None:
    """Add what is done with a network of pictures, and with which pictures."""
    task = parser.add_mutually_exclusive_group().add_argument
    task("--train", action="store_true", help="train and test; the default")
    task("--validate", metavar="CHECKPOINT", help="test a network: model.safetensors, a run's "
         "last.ckpt, or a published file with --model")  # fmt: skip
    task("--predict", nargs="+", metavar="IMAGE", help="name what is in pictures, by --weights")
    add, count = parser.add_argument, number(int, 1)
    add("--weights", metavar="CHECKPOINT", help="for --predict; as for --validate")
    add("--data", type=nonempty, metavar="FOLDER", help="ImageNet or the like: "
        "train/CLASS/*.JPEG and val/CLASS/*.JPEG (the bundled part of Fashion-MNIST)")  # fmt: skip
    add("--fashion-mnist", type=nonempty, metavar="FOLDER", help="its own four files")
    add("--img-size", type=count, metavar="N", help="height and width of what the network gets")
    add("--on-error", choices=("raise", "skip"), default="raise", metavar="RULE", help="of a "
        "picture that cannot be read: raise stops; skip names it and leaves it out of the test, "
        "and in training takes the next one in its place (%(default)s)")  # fmt: skip
    add("--limit-batches", type=count, metavar="N", help="batches of each part, to try a run")
    add("--val-every", type=count, metavar="N",
        help="epochs from one validation to the next (1; 10 for Fashion-MNIST)")  # fmt: skip


def checked_pictures(
    parser: Parser, args: argparse.Namespace, models: Sequence[str]
) -> argparse.Namespace:
    """End with an error where arguments do not go together, or the network is none of those."""
    if args.predict and not args.weights:
        parser.error("--predict needs --weights")
    if args.weights and not args.predict:
        parser.error("--weights is for --predict; --validate names its checkpoint itself")
    if args.data and args.fashion_mnist:
        parser.error("--data and --fashion-mnist: give one of them")
    if args.model and args.model not in models:
        parser.error(f"--model: there is no {args.model!r}: choose one of {', '.join(models)}")
    return args


def add_machine_arguments(
    parser: Parser, *, out: str, workers: int | None = None, geometry: bool = False
) -> None:
    """Add the seeds, on what machine to run, and where to write.

    Args:
        parser: Gets a group of arguments.
        out: The usual output folder.
        workers: The usual number of the loader's processes.
        geometry: Also add who searches neighbours, of clouds.
    """
    add = parser.add_argument_group("machine and output").add_argument
    seed, count = number(int, 0, 2**63 - 1), number(int, 1)
    add("--seed", type=seed, default=0, metavar="N",
        help="same seed, same result on the same machine (%(default)s)")  # fmt: skip
    add("--seeds", type=count, default=1, metavar="N",
        help="train N times, from --seed on, and report mean and spread (%(default)s)")  # fmt: skip
    add("--accelerator", default="auto", metavar="NAME", help="auto, cpu, gpu, ... (%(default)s)")
    add("--devices", default="auto", metavar="N",
        help="how many, or which; several train with DistributedDataParallel (%(default)s)"
        )  # fmt: skip
    add("--precision", type=lambda text: PRECISIONS.get(text, text), default="32-true",
        choices=sorted({*PRECISIONS.values()}), metavar="NAME",
        help="32-true, bf16 (bf16-mixed) or 16-mixed (%(default)s)")  # fmt: skip
    add("--workers", type=number(int, 0), default=workers, metavar="N",
        help="processes that read and augment; 0: the training process does")  # fmt: skip
    add("--out", type=nonempty, default=out, metavar="FOLDER",
        help="output folder; an earlier run there is moved aside (%(default)s)")  # fmt: skip
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    if geometry:
        add("--geometry", choices=["auto", "loader", "step"], default="auto", metavar="NAME",
            help="who searches neighbours, with the same result: the loader, in its workers; the "
            "step; auto: the loader where there are workers (%(default)s)")  # fmt: skip


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """On what machine to run, of a command line, for :func:`fit_and_test` and its like."""
    return {name: getattr(args, name) for name in ("accelerator", "devices", "precision")}


def loading(args: argparse.Namespace, recipe: Any, model: Any, seed: int) -> dict[str, Any]:
    """How clouds are loaded, of a command line, for :class:`PointDataModule` and :func:`vote`."""
    collate = searching_collate(model, args.geometry, args.workers)
    loading = {"batch_size": recipe.batch_size, "num_workers": args.workers, "seed": seed}
    return loading | {"collate": collate}


def processes(devices: str) -> int:
    """How many processes will train, as far as the environment and ``--devices`` say it."""
    if (world := os.environ.get("WORLD_SIZE", "")).isdigit():
        return max(1, int(world))
    return max(1, int(devices)) if devices.isdigit() else 1


def spare_cores() -> int:
    """How many processes may read pictures: the cores that a training process has, at most 8."""
    return min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def setting(default: Any, type: Any, help: str, **options: Any) -> Any:
    """A field of a recipe.

    Args:
        default: Its value where a recipe does not say.
        type: Converts the text of an argument; ``bool`` makes a pair ``--name`` and ``--no-name``.
        help: What the argument's help says.
        options: ``choices``, for argparse; ``off``, the value that ``--no-name`` stands for.
    """
    return field(default=default, metadata={"type": type, "help": help, **options})


def add_settings(parser: Parser, recipes: Mapping[str, Any]) -> None:
    """Add one argument for each setting of a recipe; ``None`` where it is not given.

    The help shows the values of all recipes, which are of one class, side by side.
    """
    group = parser.add_argument_group(
        "recipe", f"in brackets: the defaults for {' | '.join(recipes)}"
    )
    for item in fields(next(iter(recipes.values()))):
        flag, about = _flag(item), item.metadata
        values = dict.fromkeys(_text(getattr(recipe, item.name)) for recipe in recipes.values())
        options: dict[str, Any] = {"help": f"{about['help']} ({' | '.join(values)})"}
        if about["type"] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, **options)
            continue
        options["type"], options["choices"] = about["type"], about.get("choices")
        options["metavar"] = {"str": "NAME", "float": "X"}.get(str(item.type), "N")
        if "off" in about:  # the name alone is what the recipe has
            group.add_argument(flag, nargs="?", **options)
            group.add_argument(_off(flag), dest=item.name, action="store_const",
                               const=about["off"], help=f"{flag} {about['off']}")  # fmt: skip
        else:
            group.add_argument(flag, **options)


def chosen(
    args: argparse.Namespace, base: Settings, items: int | None = None
) -> tuple[Settings, list[str]]:
    """A recipe with the settings that were given on the command line, and what follows from them.

    Args:
        args: The command line.
        base: What settings are where they are not given and nothing follows for them.
        items: Training items a process, if they are known: no batch is larger.

    Returns:
        The recipe, and what followed, such as `["--warmup-epochs 0 (not 10)"]`.

    Raises:
        RunError: Settings that were given do not fit together.
    """
    recipe: Any = base
    values = {item.name: getattr(args, item.name) for item in fields(recipe)}
    given = {name: value for name, value in values.items() if value is not None}
    followed = recipe.follow(given, items) if hasattr(recipe, "follow") else {}
    notes = [
        f"{_flag(item)} {followed[item.name]} (not {getattr(recipe, item.name)})"
        for item in fields(recipe)
        if item.name in followed
    ]
    return replace(recipe, **given, **followed), notes


def recipe_name(name: str, recipe: Any, base: Any) -> str:
    """What results call a recipe: its name, and what differs from what the name stands for."""
    changed = []
    for item in fields(base):
        if (value := getattr(recipe, item.name)) != getattr(base, item.name):
            flag = _flag(item) if value is not False else _off(_flag(item))
            changed.append(flag if isinstance(value, bool) else f"{flag} {value}")
    return f"{name} with {' '.join(changed)}" if changed else name


def _flag(item: Field) -> str:
    return "--" + item.name.replace("_", "-")


def _off(flag: str) -> str:
    return flag.replace("--", "--no-", 1)


def _text(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
