"""Train and test a classifier of scanned objects, on ScanObjectNN or a folder of your own.

recipes:
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
variants it has five copies of each object, so that these are easier than the test.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from functools import partial
from pathlib import Path

try:
    import torch

    from pointcluster import training, viz
    from pointcluster.datasets import HomeObjects, ScanObjectNN
    from pointcluster.datasets.scanobjectnn import find_scanobjectnn
    from pointcluster.models import create_model, list_models
    from pointcluster.training import log, say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; training needs: pip install -e '.[train]'")

ROOT = os.path.relpath(Path(__file__).resolve().parents[1] / "datasets" / "scanobjectnn")
MODELS = [*list_models("point_*"), *list_models("pointmlp_*")]
RECIPES = training.POINT_RECIPES


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(doc=__doc__)
    training.add_scan_arguments(parser, ROOT)
    add = parser.add_argument
    add("--recipe", choices=RECIPES, metavar="NAME", help="see below (what fits)")
    add("--vote", type=training.number(int, 0), default=0, metavar="N",
        help="beside the result, test on the mean of N augmented views a cloud")  # fmt: skip
    add("--best-test-epoch", action="store_true",
        help="beside the result, name the best test epoch: picked on the test set")  # fmt: skip
    training.add_cloud_arguments(parser, MODELS, default="point_coc_tiny")
    training.add_settings(parser, RECIPES)
    training.add_machine_arguments(parser, out="runs/scanobjectnn", workers=0, geometry=True)
    return training.checked_scans(parser, parser.parse_args())


def load_data(args: argparse.Namespace) -> training.Clouds:
    """The two splits: what was asked for, ScanObjectNN where it is, otherwise HomeObjects."""
    if args.data:
        train, test = training.cloud_folder(args.data, args.num_points, args.columns)
        name = Path(args.data).expanduser().resolve().name
        return training.Clouds(name, train, test, None, max(args.num_points, 2048))
    options = {"variant": args.variant, "background": args.background, "part": args.part}
    asked = {name: value for name, value in options.items() if value is not None}
    if args.root or find_scanobjectnn(ROOT):
        train, test = (ScanObjectNN(args.root or ROOT, part, **asked) for part in ("train", "test"))
        return training.Clouds(train.name, train, test, train.num_points, train.num_points, False)
    if asked:
        raise ValueError(f"--{next(iter(asked))} is of ScanObjectNN, which is not in {ROOT}: give "
                         "--root")  # fmt: skip
    say(f"ScanObjectNN is not in {ROOT} (python datasets/fetch.py scanobjectnn tells how to get "
        "it): training on HomeObjects")  # fmt: skip
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    return training.Clouds("HomeObjects", train, test, train[0].num_nodes, train[0].num_nodes)


def run(args: argparse.Namespace) -> None:
    tell = partial(log, args)
    # Data, and what fits them: what is wrong shows here, before training.
    with training.bad_input():
        data = load_data(args)
        if args.recipe is None:
            fits = "published" if args.model in list_models("pointmlp_*") else "modern"
            args.recipe = "small" if isinstance(data.train, HomeObjects) else fits
        items = round(len(data.train) * (1 - args.val_fraction)) // training.processes(args.devices)
        recipe, followed = training.chosen(args, RECIPES[args.recipe], items)
        recipe.smoothing(len(data.classes))
        model = create_model(args.model, num_classes=len(data.classes), in_channels=0)
        held, digest = data.look_through(args.num_points, args.val_fraction)
    title = data.title(args.num_points)
    called = training.recipe_name(args.recipe, recipe, RECIPES[args.recipe])
    settings = {"data": data.name, "clouds": [len(data.train), len(data.test)]}
    settings |= {"classes": data.classes, "network": model.config, "fingerprint": digest}
    training.begin(args, dataclasses.asdict(recipe) | settings, free=("root", "data"))
    if followed:
        tell(f"for {len(data.train):,} training clouds and {recipe.epochs} epochs: "
             + ", ".join(followed))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tell(f"{title}: {data.counted()}; {args.model}, {parameters / 1e6:.2f}M parameters, recipe "
         f"{called}")  # fmt: skip
    augment = recipe.train_transform(args.num_points, args.up)
    plain = recipe.test_transform(args.num_points)
    prepared = recipe.preprocessing(
        args.num_points, sampled=data.sampled, normalized=data.normalized, up=args.up
    )

    results = []
    for seed, folder in training.seeds(args, results):
        began, heading = time.perf_counter(), f"{title}, {args.model}, seed {seed}: "
        # The network, and its batches.
        torch.manual_seed(seed)
        model = create_model(args.model, num_classes=len(data.classes), in_channels=0)
        loading = training.loading(args, recipe, model, seed)
        batches = training.PointDataModule(
            data.train, data.test, out=held, train_transform=augment, test_transform=plain,
            **loading,
        )  # fmt: skip
        # Training, and a test by the weights of the last epoch.
        classifier = training.Classifier(
            model, data.classes, recipe=recipe, seed=seed, preprocessing=prepared
        )
        epochs = training.TestEachEpoch(folder / "test_epochs.csv")
        metrics = training.fit_and_test(
            classifier, batches, folder=folder, resume=args.resume, say=tell,
            callbacks=[epochs] if args.best_test_epoch else [],
            title=f"{title} seed {seed} " if args.seeds > 1 else f"{title} ",
            **training.machine(args),
        )  # fmt: skip
        result = {"data": data.name, "kind": type(data.test).__name__}
        result |= {"num_points": args.num_points, "points": data.points}
        if isinstance(data.test, ScanObjectNN):
            of = data.test
            result |= {"variant": of.variant, "background": of.background, "part": of.part}
        result |= {"model": args.model, "recipe": called, "seed": seed}
        result |= {"epochs": recipe.epochs, **metrics}
        # Figures of another kind, beside the result.
        if args.vote:
            views = {"transform": augment, **loading, **training.machine(args)}
            vote = training.vote(classifier, data.test, args.vote, **views)
            result["vote"] = {"votes": args.vote, **vote}
        if args.best_test_epoch:
            result["best_test_epoch"] = epochs.best()
        result["seconds"] = round(time.perf_counter() - began, 1)
        results.append(result)
        classifier.save(folder, result)
        # A picture, and a table, of what is taken for what.
        if training.is_first_process():
            counts, accuracy = classifier.test_confusion, f"{metrics['test_accuracy']:.1%}"
            look = {"classes": data.classes, "heading": f"{heading}test accuracy {accuracy}"}
            viz.confusion_picture(folder / "confusion.png", counts.numpy(), **look)
            training.write_confusion(folder / "confusion.csv", counts, data.classes)
        tell(f"{heading}test accuracy {training.accuracies(metrics)} (last of {recipe.epochs} "
             f"epochs), {result['seconds']:.0f} s")  # fmt: skip
        for line in training.beside(result, args.vote):
            tell(heading + line)

    summary = training.summarise(results)
    if args.seeds > 1:
        heading = f"{title}, {args.model}, {args.seeds} seeds: "
        tell(f"{heading}test accuracy {training.accuracies(summary)} (last of {recipe.epochs} "
             "epochs, mean ± sample standard deviation)")  # fmt: skip
        for line in training.beside(summary, args.vote):
            tell(heading + line)
    whole = {"data": data.name, "num_points": args.num_points, "points": data.points}
    whole |= {"model": args.model, "recipe": called, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "confusion.*"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
