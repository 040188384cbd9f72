"""Train a classifier of 3D objects, test it, and draw the clusters it works with."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch
    from torch_geometric.transforms import Compose, FixedPoints, RandomJitter

    from pointcluster import training, transforms, viz
    from pointcluster.datasets import HomeObjects, ModelNet40
    from pointcluster.datasets.modelnet40 import FORMS, find_modelnet40
    from pointcluster.models import create_model, list_models, save_model
    from pointcluster.training import say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `make modelnet40` installs all that training "
             "needs, as does: pip install -e '.[train]'")  # fmt: skip

ROOT = os.path.relpath(Path(__file__).resolve().parents[1] / "datasets" / "modelnet40")

# What --epochs, --batch-size and --label-smoothing are where they are not given.
RECIPES = {
    "HomeObjects": {"epochs": 30, "batch_size": 16, "label_smoothing": 0.1},
    "ModelNet40": {"epochs": 250, "batch_size": 32, "label_smoothing": 0.2},
}
# The last one is the network where none is named.
MODELS = [*list_models("pointmlp*"), *list_models("point_*")]
# Settings that may change when a run is resumed: they do not decide its result.
FREE = ("resume", "out", "root", "download", "workers", "geometry", "accelerator")
# Packages that decide a result.
DECISIVE = ("pointcluster", "torch", "torch-geometric", "lightning", "torchmetrics", "numpy")

EPILOG = f"""where --epochs, --batch-size and --label-smoothing are not given:
  HomeObjects   {RECIPES["HomeObjects"]}
  ModelNet40    {RECIPES["ModelNet40"]}

examples:
  python examples/modelnet40.py                          HomeObjects, minutes on two cores
  python examples/modelnet40.py --download               ModelNet40, fetched first (435 MB)
  python examples/modelnet40.py --root ~/data --seeds 3  a local ModelNet40, mean and spread
  python examples/modelnet40.py --resume                 go on after Ctrl-C
  torchrun --nproc-per-node 4 examples/modelnet40.py --devices 4 --precision bf16-mixed

A run leaves config.json, command.txt, metrics.csv, tensorboard/, checkpoints/, results.json,
model.safetensors with model.json, clusters.png and confusion.png (with --animate clusters.gif,
too) in the --out folder; with --seeds, in one folder a seed. Accuracy is that of the last epoch: no
epoch is picked by it."""


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument("--root", type=training.nonempty, metavar="FOLDER",
                      help="where ModelNet40's files are; without "
                      f"it they are looked for in {ROOT}, and if they are not there the bundled "
                      "HomeObjects are used")  # fmt: skip
    data.add_argument(
        "--form",
        choices=tuple(FORMS),
        default="hdf5",
        metavar="NAME",
        help="of ModelNet40: hdf5 (2,048 points), resampled (text files of 10,000 "
        "points) or meshes, whose points are drawn (%(default)s)",
    )
    data.add_argument("--download", action="store_true",
                      help="fetch ModelNet40's HDF5 form where it is not there yet")  # fmt: skip
    data.add_argument("--num-points", type=training.number(int, 1), default=1024, metavar="N",
                      help="points a cloud: drawn anew each epoch in training, the first ones in "
                      "the test (%(default)s)")  # fmt: skip
    data.add_argument(
        "--normals",
        action="store_true",
        help="normals as input features; all data here have them, but for copies of ModelNet40's "
        "HDF5 form that were written without",
    )
    training.add_training_arguments(parser, models=MODELS, out="runs/modelnet40")
    parser.add_argument(
        "--animate",
        action="store_true",
        help="clusters.gif: how the clusters of four test clouds change over the epochs",
    )
    return parser.parse_args()


def load_data(args: argparse.Namespace):
    """The two splits: ModelNet40 where it is or was asked for, otherwise HomeObjects."""
    if args.root or args.download or find_modelnet40(ROOT, args.form):
        root, options = args.root or ROOT, {"form": args.form, "normals": args.normals}
        train = ModelNet40(root, "train", download=args.download, **options)
        return train.name, train, ModelNet40(root, "test", **options)
    if args.form != "hdf5":
        raise ValueError(f"--form {args.form}: it is not in {ROOT}, and --root names no folder")
    say(f"ModelNet40 is not in {ROOT}, and neither --root nor --download asks for it: "
        "training on HomeObjects")  # fmt: skip
    return "HomeObjects", HomeObjects(split="train"), HomeObjects(split="test")


def prepare(args: argparse.Namespace):
    """Data and output folder: what is wrong with the arguments shows here, before training."""
    name, train, test = load_data(args)
    if args.num_points > (points := train[0].num_nodes):
        raise ValueError(f"--num-points is {args.num_points}, {name} has {points} points a cloud")
    recipe = RECIPES["HomeObjects" if name == "HomeObjects" else "ModelNet40"]
    for setting, value in recipe.items():
        if getattr(args, setting) is None:
            setattr(args, setting, value)
    known = training.survey(train)
    out = training.hold_out(known, args.val_fraction)
    settings = {"data": name, "fingerprint": known.digest + training.survey(test).digest}
    training.begin(args, settings, free=FREE, packages=DECISIVE)
    say(f"{name}: {len(train):,} training and {len(test):,} test clouds, {len(train.classes)} "
        f"classes, {args.num_points:,} of {points:,} points each")  # fmt: skip
    return name, train, test, out


def describe(args: argparse.Namespace, name: str, clouds: Any) -> str:
    """What was tested, for every printed result."""
    return f"{name}, {args.num_points:,} of {clouds[0].num_nodes:,} points"


def augmentation(args: argparse.Namespace) -> list:
    """What happens to a training cloud, anew in each epoch."""
    steps = [FixedPoints(args.num_points, replace=False)]
    steps += [transforms.RandomMirror(0)] if args.mirror else []
    steps += [transforms.RandomRotateUp()] if args.rotate else []
    steps += [transforms.RandomAnisotropicScale(0.8, 1.25)] if args.scale else []
    steps += [transforms.RandomTranslate(0.1)] if args.translate else []
    steps += [RandomJitter(0.01)] if args.jitter else []
    return steps


def train_and_test(args: argparse.Namespace, name: str, train, test, out, seed: int, folder: Path):
    """One run: train, test, save the network, draw the pictures."""
    features = [transforms.NormalsAsFeatures()] if args.normals else []
    test_transform = Compose([transforms.FirstPoints(args.num_points), *features])
    torch.manual_seed(seed)
    channels = 3 if args.normals else 0
    model = create_model(args.model, num_classes=len(train.classes), in_channels=channels)
    data = training.PointDataModule(
        train,
        test,
        batch_size=args.batch_size,
        num_workers=args.workers,
        seed=seed,
        train_transform=Compose([*augmentation(args), *features]),
        test_transform=test_transform,
        collate=training.searching_collate(model, args.geometry, args.workers),
        out=out,
    )
    preprocessing = {"num_points": args.num_points, "sampled": train[0].num_nodes,
                     "normalize": True, "up": "y",
                     "features": ["normal"] if args.normals else []}  # fmt: skip
    classifier = training.Classifier(
        model,
        train.classes,
        lr=args.lr,
        weight_decay=args.weight_decay,
        label_smoothing=args.label_smoothing,
        seed=seed,
        preprocessing=preprocessing,
    )
    film = []
    if args.animate:
        # The first cloud of each of the first classes, in as many pictures as make a short film.
        numbers = {int(item.y): i for i, item in reversed(list(enumerate(test)))}
        items = [test_transform(test[numbers[label]].clone()) for label in sorted(numbers)[:4]]
        names = [train.classes[label].replace("_", " ") for label in sorted(numbers)[:4]]
        film.append(
            training.ClusterFilm(
                folder / "clusters.gif", items, titles=names, every=max(1, args.epochs // 60)
            )
        )
    metrics = training.fit_and_test(
        classifier,
        data,
        folder=folder,
        epochs=args.epochs,
        resume=args.resume,
        accelerator=args.accelerator,
        devices=args.devices,
        precision=args.precision,
        title=describe(args, name, train) + (f" seed {seed} " if args.seeds > 1 else " "),
        callbacks=tuple(film),
    )
    result = {"data": name, "num_points": args.num_points, "points": train[0].num_nodes}
    result |= {"model": args.model, "seed": seed, "epochs": args.epochs, **metrics}
    title = (f"{describe(args, name, train)}, {args.model}, seed {seed}: test accuracy "
             f"{metrics['test_accuracy']:.1%}")  # fmt: skip
    if training.is_first_process():
        model = model.cpu().eval()
        save_model(folder / "model", model, {"classes": train.classes, "result": result,
                                             "preprocessing": preprocessing})  # fmt: skip
        matrix = classifier.test_confusion.numpy()
        viz.confusion_picture(folder / "confusion.png", matrix, train.classes, heading=title)
        test.transform = test_transform
        viz.model_clusters(
            folder / "clusters.png", model, test, classes=train.classes, heading=title
        )
        test.transform = None
    say(f"{title} overall, {metrics['test_mean_class_accuracy']:.1%} mean over classes "
        f"(last of {args.epochs} epochs)")  # fmt: skip
    return result


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():
        name, train, test, out = prepare(args)
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, name, train, test, out, seed, folder)
    )
    summary = training.summarise(results)
    if args.seeds > 1:
        overall, mean = map(training.spread, summary.values())
        say(f"{describe(args, name, train)}, {args.model}, {args.seeds} seeds: test accuracy "
            f"{overall} overall, {mean} mean over classes (mean ± standard deviation)"
            )  # fmt: skip
    whole = {"data": name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "*.png", "*.gif"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
