"""Train and test a classifier of scanned objects, on ScanObjectNN or a folder of your own."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch

    from pointcluster import training, viz
    from pointcluster.datasets import HomeObjects, ScanObjectNN
    from pointcluster.datasets.scanobjectnn import PARTS, VARIANTS, find_scanobjectnn
    from pointcluster.models import create_model, list_models, save_model
    from pointcluster.training import log, say
    from pointcluster.transforms.clouds import AXES
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; training needs: pip install -e '.[train]'")

ROOT = os.path.relpath(Path(__file__).resolve().parents[1] / "datasets" / "scanobjectnn")
MODELS = [*list_models("point_*"), *list_models("pointmlp_*")]
RECIPES = training.POINT_RECIPES
# Settings that may change when a run is resumed: they do not decide its result.
FREE = ("resume", "out", "root", "data", "workers", "geometry", "accelerator")
# Packages that decide a result.
DECISIVE = ("pointcluster", "torch", "torch-geometric", "lightning", "torchmetrics", "numpy")

EPILOG = f"""recipes:
  published   what the program released with the paper on context clusters does; for pointmlp_coc
  modern      AdamW, cosine, smoothed labels, turned and stretched clouds, other points each time;
              for all other networks
  small       modern, shorter, and without turning; for HomeObjects
Any setting of a recipe can be changed: --recipe published --epochs 100 --rotate

examples:
  python examples/scanobjectnn.py                        HomeObjects, minutes on two cores
  python examples/scanobjectnn.py --root h5_files.zip --seeds 3
  python examples/scanobjectnn.py --root ~/h5_files --variant OBJ_ONLY --num-points 2048
  python examples/scanobjectnn.py --data ~/scans         folders of clouds or meshes, one a class
  python examples/scanobjectnn.py --resume               go on after Ctrl-C
  torchrun --nproc-per-node 4 examples/scanobjectnn.py --root ~/h5_files --precision bf16-mixed

networks: {", ".join(MODELS)}

A run leaves config.json, command.txt, log.txt, metrics.csv, tensorboard/, checkpoints/,
results.json, confusion.csv, confusion.png and model.safetensors with model.json in the --out
folder; with --seeds, in one folder a seed. The result is the test accuracy of the last epoch, one
look at each cloud's first points: no epoch is picked by it. --best-test-epoch and --vote add
columns of their own beside it. Validation clouds are taken from the training split; in the PB
variants it has five copies of each object, so that these are easier than the test."""


class Clouds(NamedTuple):
    """The two splits of a data set, and what results call it."""

    name: str
    train: Any
    test: Any
    points: int | None  # of each cloud; None: they differ
    sampled: int  # most points of a cloud
    normalize: bool  # whether they lie in the unit sphere around their mean
    held: Any = None  # training clouds that are kept, and that are held out


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    place = data.add_mutually_exclusive_group()
    place.add_argument("--root", type=training.nonempty, metavar="PATH",
                       help="ScanObjectNN: h5_files.zip, or the folder "
                       f"it unpacks to; without it that is looked for in {ROOT}, and if it is "
                       "not there the bundled HomeObjects are used")  # fmt: skip
    place.add_argument(
        "--data",
        type=training.nonempty,
        metavar="FOLDER",
        help="clouds or meshes of your own, "
        "train/CLASS/* and test/CLASS/*, or CLASS/* of which a part is the test",
    )
    data.add_argument("--variant", choices=tuple(VARIANTS), metavar="NAME",
                      help=f"of ScanObjectNN: {', '.join(VARIANTS)} (PB_T50_RS)")  # fmt: skip
    data.add_argument("--background", action=argparse.BooleanOptionalAction,
                      help="of ScanObjectNN: with the points around the object (yes, but for "
                      "OBJ_ONLY)")  # fmt: skip
    data.add_argument("--part", choices=tuple(PARTS), metavar="NAME",
                      help=f"of ScanObjectNN: {', '.join(PARTS)} (main_split)")  # fmt: skip
    data.add_argument("--up", choices=AXES, metavar="AXIS", help="of --data: the axis that points "
                      "up in your files, about which clouds are turned (y)")  # fmt: skip
    data.add_argument("--columns", type=training.nonempty, metavar="NAMES", help="of --data: what "
                      "the columns of tables are, such as 'x y z nx ny nz label'; - is one to "
                      "leave out")  # fmt: skip
    data.add_argument("--num-points", type=training.number(int, 1), default=1024, metavar="N",
                      help="points a cloud that the network gets (%(default)s)")  # fmt: skip
    data.add_argument("--val-fraction", type=training.number(float, 0, 0.9), default=0.0,
                      metavar="X", help="part of the training clouds held out for validation, "
                      "the same for every seed (0.0)")  # fmt: skip
    group = parser.add_argument_group("network and recipe")
    group.add_argument("--model", choices=MODELS, default="point_coc_tiny", metavar="NAME",
                       help=f"network: {', '.join(MODELS)} (%(default)s)")  # fmt: skip
    group.add_argument("--recipe", choices=tuple(RECIPES), metavar="NAME",
                       help=f"{', '.join(RECIPES)} (what fits, see below)")  # fmt: skip
    training.add_settings(parser, RECIPES)
    more = parser.add_argument_group("columns beside the result")
    more.add_argument(
        "--vote",
        type=training.number(int, 0),
        default=0,
        metavar="N",
        help="also test on the mean of N augmented views a cloud (none)",
    )
    more.add_argument("--best-test-epoch", action="store_true",
                      help="also test after each epoch and name the best: picked on the test "
                      "set, not a result")  # fmt: skip
    training.add_machine_arguments(parser, out="runs/scanobjectnn", geometry=True)
    args = parser.parse_args()
    for name in ("variant", "background", "part"):
        if args.data and getattr(args, name) is not None:
            parser.error(f"--{name} is of ScanObjectNN, and --data is given")
    if args.up and not args.data:
        parser.error("--up is of --data, which is not given: elsewhere the second axis points up")
    if args.columns and not args.data:
        parser.error("--columns is of --data, which is not given")
    args.up = args.up or "y"
    return args


def load_data(args: argparse.Namespace) -> Clouds:
    """The two splits: what was asked for, ScanObjectNN where it is, otherwise HomeObjects."""
    if args.data:
        return load_folder(Path(args.data).expanduser(), args.num_points, args.columns)
    if args.root or find_scanobjectnn(ROOT):
        options = {"variant": args.variant or "PB_T50_RS", "background": args.background,
                   "part": args.part or "main_split"}  # fmt: skip
        train, test = (ScanObjectNN(args.root or ROOT, part, **options)
                       for part in ("train", "test"))  # fmt: skip
        return Clouds(train.name, train, test, train.num_points, train.num_points, False)
    asked = [f"--{name}" for name in ("variant", "background", "part")
             if getattr(args, name) is not None]  # fmt: skip
    if asked:
        raise ValueError(f"{asked[0]} is of ScanObjectNN, which is not in {ROOT}: give --root")
    say(f"ScanObjectNN is not in {ROOT} (python datasets/fetch.py scanobjectnn tells how to get "
        "it): training on HomeObjects")  # fmt: skip
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    points = train[0].num_nodes
    return Clouds("HomeObjects", train, test, points, points, True)


def load_folder(root: Path, num_points: int, columns: str | None = None) -> Clouds:
    """Clouds of one's own, with points to choose from where the network gets fewer than 2,048."""
    if not root.is_dir():
        raise ValueError(f"--data: there is no folder {root}")
    from pointcluster.datasets import PointFolder

    points = max(num_points, 2048)
    train, test = (
        PointFolder(root, split=part, num_points=points, fields=(), columns=columns)
        for part in ("train", "test")
    )
    if len(train.classes) < 2:
        raise ValueError(f"--data {root}: there is one class, {train.classes[0]}, expected at "
                         "least two, each a folder")  # fmt: skip
    if list(train.classes) != list(test.classes):
        differ = sorted({*train.classes} ^ {*test.classes})
        raise ValueError(f"--data {root}: train and test have other classes: {differ[:3]}")
    return Clouds(root.resolve().name, train, test, None, points, True)


def choose_recipe(args: argparse.Namespace, data: Clouds) -> tuple[training.PointRecipe, list[str]]:
    """The recipe that was named or fits, with what was changed or follows; args keep its name."""
    if args.recipe is None:
        published = args.model in list_models("pointmlp_*")
        args.recipe = "published" if published else "modern"
        args.recipe = "small" if isinstance(data.train, HomeObjects) else args.recipe
    items = round(len(data.train) * (1 - args.val_fraction)) // training.processes(args.devices)
    recipe, followed = training.chosen(args, RECIPES[args.recipe], items)
    if args.momentum is not None and recipe.optimizer != "sgd":
        raise ValueError(
            f"--momentum is of SGD, and the optimizer is {recipe.optimizer}: add --optimizer sgd"
        )
    return recipe, followed


def called(args: argparse.Namespace, recipe: training.PointRecipe) -> str:
    """What results call the recipe: its name, and what was changed."""
    return training.recipe_name(args.recipe, recipe, RECIPES[args.recipe])


def prepare(args: argparse.Namespace) -> tuple[Clouds, training.PointRecipe]:
    """Data, recipe and output folder: what is wrong with them shows here, before training."""
    with training.bad_input():
        data = load_data(args)
        if data.points is not None and args.num_points > data.points:
            raise ValueError(f"--num-points is {args.num_points}, {data.name} has {data.points} "
                             "points a cloud")  # fmt: skip
        recipe, followed = choose_recipe(args, data)
        model = build(args, data)
        training.PointClassifier(model, data.test.classes, recipe=recipe)
        # Every cloud is read once: what cannot be read shows here, and not after an epoch.
        train, test = training.survey(data.train), training.survey(data.test)
        data = data._replace(held=training.hold_out(train, args.val_fraction))
    if args.workers is None:
        args.workers = 0
    settings = dataclasses.asdict(recipe) | {
        "data": data.name,
        "clouds": [len(data.train), len(data.test)],
        "classes": list(data.test.classes),
        "network": model.config,
        # A folder of the same name may hold other clouds when a run is resumed.
        "fingerprint": train.digest + test.digest,
    }
    training.begin(args, settings, free=FREE, packages=DECISIVE)
    if followed:
        log(args, f"for {len(data.train):,} training clouds and {recipe.epochs} epochs: "
            + ", ".join(followed))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log(args, f"{describe(args, data)}: {len(data.train):,} training and {len(data.test):,} "
        f"test clouds, {len(data.test.classes)} classes; {args.model}, "
        f"{parameters / 1e6:.2f}M parameters, recipe {called(args, recipe)}")  # fmt: skip
    return data, recipe


def build(args: argparse.Namespace, data: Clouds) -> torch.nn.Module:
    return create_model(args.model, num_classes=len(data.test.classes), in_channels=0)


def describe(args: argparse.Namespace, data: Clouds) -> str:
    """What was tested, for every printed result."""
    of = "" if data.points is None else f" of {data.points:,}"
    return f"{data.name}, {args.num_points:,}{of} points"


def train_and_test(
    args: argparse.Namespace, data: Clouds, recipe: training.PointRecipe, seed: int, folder: Path
) -> dict[str, Any]:
    """One run: train, test, save the network and what it takes for what."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model = build(args, data)
    prepared = preprocessing(args, data, recipe)
    classifier = training.PointClassifier(
        model, data.test.classes, recipe=recipe, seed=seed, preprocessing=prepared
    )
    collate = training.searching_collate(model, args.geometry, args.workers)
    loaders = training.PointDataModule(
        data.train,
        data.test,
        batch_size=recipe.batch_size,
        num_workers=args.workers,
        seed=seed,
        train_transform=recipe.train_transform(args.num_points, args.up),
        test_transform=recipe.test_transform(args.num_points),
        collate=collate,
        out=data.held,
    )
    each = training.TestEachEpoch(folder / "test_epochs.csv") if args.best_test_epoch else None
    machine = {key: getattr(args, key) for key in ("accelerator", "devices", "precision")}
    metrics = training.fit_and_test(
        classifier,
        loaders,
        folder=folder,
        epochs=recipe.epochs,
        resume=args.resume,
        clip_grad=recipe.clip_grad,
        title=describe(args, data) + (f" seed {seed} " if args.seeds > 1 else " "),
        say=lambda text: log(args, text),
        callbacks=() if each is None else (each,),
        **machine,
    )
    confusion = classifier.test_confusion
    kind = type(data.test).__name__
    result = {"data": data.name, "kind": kind, "num_points": args.num_points, "points": data.points}
    if isinstance(data.test, ScanObjectNN):
        result |= {key: getattr(data.test, key) for key in ("variant", "background", "part")}
    result |= {"model": args.model, "recipe": called(args, recipe), "seed": seed}
    result |= {"epochs": recipe.epochs}
    result |= metrics
    if each is not None:
        result["best_test_epoch"] = each.best()
    if args.vote:
        voted = training.vote(
            classifier,
            data.test,
            args.vote,
            transform=recipe.train_transform(args.num_points, args.up),
            batch_size=recipe.batch_size,
            num_workers=args.workers,
            seed=seed,
            collate=collate,
            **machine,
        )
        result["vote"] = {"votes": args.vote, **voted}
    result["seconds"] = round(time.perf_counter() - began, 1)
    heading = f"{describe(args, data)}, {args.model}, seed {seed}: "
    if training.is_first_process():
        classes = data.test.classes
        save_model(
            folder / "model",
            model.cpu().eval(),
            {
                "classes": list(classes),
                "result": result,
                "preprocessing": prepared,
            },
        )
        viz.confusion_picture(
            folder / "confusion.png",
            confusion.numpy(),
            classes,
            heading=heading + f"test accuracy {metrics['test_accuracy']:.1%}",
        )
        write_confusion(folder / "confusion.csv", confusion.tolist(), classes)
    log(args, heading + accuracies(result) + f" (last of {recipe.epochs} epochs), "
        f"{result['seconds']:.0f} s")  # fmt: skip
    for line in beside(result):
        log(args, heading + line)
    return result


def preprocessing(
    args: argparse.Namespace, data: Clouds, recipe: training.PointRecipe
) -> dict[str, Any]:
    """What `python -m pointcluster.predict` is to do with a scan, as it was done here."""
    return {
        "num_points": args.num_points,
        "sampled": data.sampled,
        "normalize": "cube" if recipe.normalize else data.normalize,
        "up": args.up,
        "features": [],
    }


def accuracies(result: dict[str, Any]) -> str:
    return (f"test accuracy {result['test_accuracy']:.1%} overall, "
            f"{result['test_mean_class_accuracy']:.1%} mean over classes")  # fmt: skip


def beside(result: dict[str, Any]) -> Iterator[str]:
    """What was measured beside the result, each under its label."""
    if "vote" in result:
        vote = result["vote"]
        yield (f"with {vote['votes']} votes: {vote['voted_accuracy']:.1%} overall, "
               f"{vote['voted_mean_class_accuracy']:.1%} mean over classes")  # fmt: skip
    if "best_test_epoch" in result:
        best = result["best_test_epoch"]
        yield (f"{best['test_accuracy']:.1%} overall after epoch {best['epoch']} "
               f"({best['label']})")  # fmt: skip


def write_confusion(path: Path, counts: list[list[int]], classes: Sequence[str]) -> None:
    """True classes down, predicted ones across."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts, strict=True))
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of the result and, apart from it, of what was measured beside it."""
    summary: dict[str, Any] = training.summarise(results)
    for column, key in (("vote", "voted_accuracy"), ("best_test_epoch", "test_accuracy")):
        if column in results[0]:
            rows = [{column: result[column][key]} for result in results]
            summary |= training.summarise(rows, [column])
    return summary


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    data, recipe = prepare(args)
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, data, recipe, seed, folder)
    )
    summary = summarise(results)
    heading = f"{describe(args, data)}, {args.model}, {args.seeds} seeds: "
    if args.seeds > 1:
        spread = {column: training.spread(row) for column, row in summary.items()}
        log(args, heading + f"test accuracy {spread['test_accuracy']} overall, "
            f"{spread['test_mean_class_accuracy']} mean over classes (last of "
            f"{recipe.epochs} epochs, mean ± sample standard deviation)")  # fmt: skip
        for column, label in (("vote", f"with {args.vote} votes"),
                              ("best_test_epoch", training.TestEachEpoch.LABEL)):  # fmt: skip
            if column in summary:
                log(args, heading + f"{spread[column]} overall ({label})")
    whole = {"data": data.name, "num_points": args.num_points, "points": data.points,
             "model": args.model, "recipe": called(args, recipe)}  # fmt: skip
    whole |= {"summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "confusion.*"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
