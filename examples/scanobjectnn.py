"""Train and test a classifier of scanned objects, on ScanObjectNN or a folder of your own."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import warnings
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


class Clouds(NamedTuple):
    """The two splits of a data set, and what results call it."""

    name: str
    train: Any
    test: Any
    points: int | None  # of each cloud; None: they differ
    sampled: int = 2048  # most points of a cloud
    normalized: bool = True  # whether they lie in the unit sphere around their mean


def load_data(args: argparse.Namespace) -> Clouds:
    """The two splits: what was asked for, ScanObjectNN where it is, otherwise HomeObjects."""
    if args.data:
        train, test = training.cloud_folder(args.data, args.num_points, args.columns)
        name = Path(args.data).expanduser().resolve().name
        return Clouds(name, train, test, None, max(args.num_points, 2048))
    names = ("variant", "background", "part")
    asked = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.root or find_scanobjectnn(ROOT):
        train, test = (ScanObjectNN(args.root or ROOT, part, **asked) for part in ("train", "test"))
        return Clouds(train.name, train, test, train.num_points, train.num_points, False)
    if asked:
        raise ValueError(f"--{next(iter(asked))} is of ScanObjectNN, which is not in {ROOT}: give "
                         "--root")  # fmt: skip
    say(f"ScanObjectNN is not in {ROOT} (python datasets/fetch.py scanobjectnn tells how to get "
        "it): training on HomeObjects")  # fmt: skip
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    return Clouds("HomeObjects", train, test, train[0].num_nodes, train[0].num_nodes)


def train_and_test(
    args: argparse.Namespace, recipe: training.PointRecipe, title: str, data: Clouds, held: Any,
    seed: int, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One run: train, test, save the network and what it takes for what."""
    began, classes, kind = time.perf_counter(), list(data.test.classes), type(data.test)
    torch.manual_seed(seed)
    model = create_model(args.model, num_classes=len(classes), in_channels=0)
    preprocessing = recipe.preprocessing(
        args.num_points, sampled=data.sampled, normalized=data.normalized, up=args.up
    )
    classifier = training.Classifier(
        model, classes, recipe=recipe, seed=seed, preprocessing=preprocessing
    )
    loading = {
        "batch_size": recipe.batch_size,
        "num_workers": args.workers,
        "collate": training.searching_collate(model, args.geometry, args.workers),
        "seed": seed,
    }
    augment = recipe.train_transform(args.num_points, args.up)
    loaders = training.PointDataModule(
        data.train,
        data.test,
        out=held,
        train_transform=augment,
        test_transform=recipe.test_transform(args.num_points),
        **loading,
    )
    epochs = training.TestEachEpoch(folder / "test_epochs.csv")
    metrics = training.fit_and_test(
        classifier,
        loaders,
        folder=folder,
        resume=args.resume,
        title=f"{title} seed {seed} " if args.seeds > 1 else f"{title} ",
        say=lambda text: log(args, text),
        callbacks=[epochs] if args.best_test_epoch else [],
        **training.machine(args),
    )
    counts = classifier.test_confusion.numpy()
    result = {"data": data.name, "kind": kind.__name__}
    result |= {"num_points": args.num_points, "points": data.points}
    if isinstance(data.test, ScanObjectNN):
        result |= {key: getattr(data.test, key) for key in ("variant", "background", "part")}
    result |= {"model": args.model, "recipe": called(args, recipe), "seed": seed}
    result |= {"epochs": recipe.epochs, **metrics}
    heading = f"{title}, {args.model}, seed {seed}: "
    beside = []
    if args.vote:
        views = {"transform": augment, **loading, **training.machine(args)}
        vote = training.vote(classifier, data.test, args.vote, **views)
        result["vote"] = {"votes": args.vote, **vote}
        beside.append(f"with {args.vote} votes: {training.accuracies(vote, 'voted')}")
    if args.best_test_epoch:
        best = result["best_test_epoch"] = epochs.best()
        beside.append(f"{best['test_accuracy']:.1%} overall after epoch {best['epoch']} "
                      f"({best['label']})")  # fmt: skip
    result["seconds"] = round(time.perf_counter() - began, 1)
    if training.is_first_process():
        notes = {"classes": classes, "result": result, "preprocessing": preprocessing}
        save_model(folder / "model", model.cpu().eval(), notes)
        short = f"{heading}test accuracy {metrics['test_accuracy']:.1%}"
        viz.confusion_picture(folder / "confusion.png", counts, classes, heading=short)
        rows = [[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)]
        training.write_table(folder / "confusion.csv", [["true \\ predicted", *classes], *rows])
    log(args, f"{heading}test accuracy {training.accuracies(metrics)} (last of {recipe.epochs} "
        f"epochs), {result['seconds']:.0f} s")  # fmt: skip
    for line in beside:
        log(args, heading + line)
    return result


def called(args: argparse.Namespace, recipe: training.PointRecipe) -> str:
    """What results call the recipe: its name, and what was changed."""
    return training.recipe_name(args.recipe, recipe, RECIPES[args.recipe])


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():  # what is wrong shows here, before training
        data = load_data(args)
        if data.points is not None and args.num_points > data.points:
            raise ValueError(f"--num-points is {args.num_points}, {data.name} has {data.points} "
                             "points a cloud")  # fmt: skip
        if args.recipe is None:
            fits = "published" if args.model in list_models("pointmlp_*") else "modern"
            args.recipe = "small" if isinstance(data.train, HomeObjects) else fits
        items = round(len(data.train) * (1 - args.val_fraction)) // training.processes(args.devices)
        recipe, followed = training.chosen(args, RECIPES[args.recipe], items)
        classes = list(data.test.classes)
        recipe.smoothing(len(classes))
        model = create_model(args.model, num_classes=len(classes), in_channels=0)
        # Every cloud is read once: what cannot be read shows here, and not after an epoch.
        train, test = training.survey(data.train), training.survey(data.test)
        held = training.hold_out(train, args.val_fraction)
    settings = dataclasses.asdict(recipe) | {
        "data": data.name,
        "clouds": [len(data.train), len(data.test)],
        "classes": classes,
        "network": model.config,
        # A folder of the same name may hold other clouds when a run is resumed.
        "fingerprint": train.digest + test.digest,
    }
    training.begin(args, settings, free=("root", "data"))
    if followed:
        log(args, f"for {len(data.train):,} training clouds and {recipe.epochs} epochs: "
            + ", ".join(followed))  # fmt: skip
    of = "" if data.points is None else f" of {data.points:,}"
    title = f"{data.name}, {args.num_points:,}{of} points"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log(args, f"{title}: {len(data.train):,} training and {len(data.test):,} test clouds, "
        f"{len(classes)} classes; {args.model}, {parameters / 1e6:.2f}M parameters, recipe "
        f"{called(args, recipe)}")  # fmt: skip
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, recipe, title, data, held, seed, folder)
    )
    summary: dict[str, Any] = training.summarise(results)
    heading = f"{title}, {args.model}, {args.seeds} seeds: "
    if args.seeds > 1:
        log(args, f"{heading}test accuracy {training.accuracies(summary)} (last of {recipe.epochs} "
            "epochs, mean ± sample standard deviation)")  # fmt: skip
    for column, key, label in (
        ("vote", "voted_accuracy", f"with {args.vote} votes"),
        ("best_test_epoch", "test_accuracy", training.TestEachEpoch.LABEL),
    ):
        if column in results[0]:
            rows = [{column: result[column][key]} for result in results]
            summary |= training.summarise(rows, [column])
            if args.seeds > 1:
                log(args, f"{heading}{training.spread(summary[column])} overall ({label})")
    whole = {"data": data.name, "num_points": args.num_points, "points": data.points}
    whole |= {"model": args.model, "recipe": called(args, recipe)}
    training.finish(args, whole | {"summary": summary, "runs": results},
                    files=("model.*", "confusion.*"))  # fmt: skip


# The command line ---------------------------------------------------------------------------------

EPILOG = """recipes:
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
  torchrun --nproc-per-node 4 examples/scanobjectnn.py --root ~/h5_files --precision bf16

A run leaves config.json, command.txt, log.txt, metrics.csv, tensorboard/, checkpoints/,
results.json, confusion.csv, confusion.png and model.safetensors with model.json in the --out
folder; with --seeds, in one folder a seed. The result is the test accuracy of the last epoch, one
look at each cloud's first points: no epoch is picked by it. --best-test-epoch and --vote add
columns of their own beside it. Validation clouds are taken from the training split; in the PB
variants it has five copies of each object, so that these are easier than the test."""


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    place = parser.add_mutually_exclusive_group().add_argument
    place("--root", type=training.nonempty, metavar="PATH",
          help=f"ScanObjectNN: h5_files.zip, or the folder it unpacks to ({ROOT})")  # fmt: skip
    place("--data", type=training.nonempty, metavar="FOLDER", help="clouds or meshes of your own, "
          "train/CLASS/* and test/CLASS/*, or CLASS/* of which a part is the test")  # fmt: skip
    add = parser.add_argument
    of = "of ScanObjectNN: "
    add("--variant", choices=VARIANTS, metavar="NAME", help=of + f"{', '.join(VARIANTS)}")
    add("--background", action=argparse.BooleanOptionalAction,
        help=of + "with the points around the object (yes, but for OBJ_ONLY)")  # fmt: skip
    add("--part", choices=PARTS, metavar="NAME", help=of + f"{', '.join(PARTS)} (main_split)")
    add("--up", choices=AXES, metavar="AXIS", help="of --data: the axis that points up (y)")
    add("--columns", type=training.nonempty, metavar="NAMES", help="of --data: what the columns of "
        "tables are, such as 'x y z nx ny nz label'; - is one to leave out")  # fmt: skip
    add("--recipe", choices=RECIPES, metavar="NAME", help="see below (what fits)")
    add("--vote", type=training.number(int, 0), default=0, metavar="N",
        help="beside the result, test on the mean of N augmented views a cloud")  # fmt: skip
    add("--best-test-epoch", action="store_true",
        help="beside the result, name the best test epoch: picked on the test set")  # fmt: skip
    training.add_cloud_arguments(parser, MODELS, default="point_coc_tiny")
    training.add_settings(parser, RECIPES)
    training.add_machine_arguments(parser, out="runs/scanobjectnn", workers=0, geometry=True)
    args = parser.parse_args()
    for name in ("variant", "background", "part"):
        if args.data and getattr(args, name) is not None:
            parser.error(f"--{name} is of ScanObjectNN, and --data is given")
    for name in ("up", "columns"):
        if getattr(args, name) and not args.data:
            parser.error(f"--{name} is of --data, which is not given")
    args.up = args.up or "y"
    return args


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
