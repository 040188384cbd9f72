"""Train a classifier of 3D objects, test it, and draw the clusters it works with."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import warnings
from pathlib import Path
from typing import Any

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch
    from torch_geometric.transforms import Compose

    from pointcluster import training, viz
    from pointcluster.datasets import HomeObjects, ModelNet40
    from pointcluster.datasets.modelnet40 import FORMS, find_modelnet40
    from pointcluster.models import create_model, list_models, save_model
    from pointcluster.training import say
    from pointcluster.transforms import NormalsAsFeatures
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `make modelnet40` installs all that training "
             "needs, as does: pip install -e '.[train]'")  # fmt: skip

ROOT = os.path.relpath(Path(__file__).resolve().parents[1] / "datasets" / "modelnet40")
SMALL = training.POINT_RECIPES["small"]
LARGE = {"epochs": 250, "batch_size": 32, "warmup_epochs": 25, "label_smoothing": 0.2}
RECIPES = {"HomeObjects": SMALL, "ModelNet40": dataclasses.replace(SMALL, **LARGE)}


def load_data(args: argparse.Namespace) -> tuple[str, Any, Any]:
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


def train_and_test(
    args: argparse.Namespace, recipe: training.PointRecipe, title: str, data: Any, seed: int,
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One run: train, test, save the network, draw the pictures."""
    name, train, test, held = data
    torch.manual_seed(seed)
    channels = 3 if args.normals else 0
    model = create_model(args.model, num_classes=len(train.classes), in_channels=channels)
    train_transform = recipe.train_transform(args.num_points)
    test_transform = recipe.test_transform(args.num_points)
    if args.normals:
        train_transform = Compose([train_transform, NormalsAsFeatures()])
        test_transform = Compose([test_transform, NormalsAsFeatures()])
    loaders = training.PointDataModule(
        train,
        test,
        out=held,
        train_transform=train_transform,
        test_transform=test_transform,
        batch_size=recipe.batch_size,
        num_workers=args.workers,
        collate=training.searching_collate(model, args.geometry, args.workers),
        seed=seed,
    )
    preprocessing = recipe.preprocessing(
        args.num_points, sampled=train[0].num_nodes, features=["normal"] if args.normals else []
    )
    classifier = training.Classifier(
        model, train.classes, recipe=recipe, seed=seed, preprocessing=preprocessing
    )
    film = []
    if args.animate:
        clouds = (test, test.classes, test_transform)
        film = [training.film_of_classes(folder / "clusters.gif", *clouds, epochs=recipe.epochs)]
    metrics = training.fit_and_test(
        classifier,
        loaders,
        folder=folder,
        resume=args.resume,
        title=f"{title} seed {seed} " if args.seeds > 1 else f"{title} ",
        callbacks=film,
        **training.machine(args),
    )
    result = {"data": name, "num_points": args.num_points, "points": train[0].num_nodes}
    result |= {"model": args.model, "seed": seed, "epochs": recipe.epochs, **metrics}
    heading = f"{title}, {args.model}, seed {seed}: "
    if training.is_first_process():
        model = model.cpu().eval()
        notes = {"classes": train.classes, "result": result, "preprocessing": preprocessing}
        save_model(folder / "model", model, notes)
        test.transform = test_transform
        short = f"{heading}test accuracy {metrics['test_accuracy']:.1%}"
        look = {"classes": test.classes, "heading": short}
        viz.confusion_picture(folder / "confusion.png", classifier.test_confusion.numpy(), **look)
        viz.model_clusters(folder / "clusters.png", model, test, **look)
        test.transform = None
    say(f"{heading}test accuracy {training.accuracies(metrics)} (last of {recipe.epochs} epochs)")
    return result


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():  # what is wrong shows here, before training
        name, train, test = load_data(args)
        if args.num_points > (points := train[0].num_nodes):
            raise ValueError(f"--num-points is {args.num_points}, {name} has {points} points a "
                             "cloud")  # fmt: skip
        if args.epochs and args.warmup_epochs is None:
            args.warmup_epochs = args.epochs // 10  # as in both recipes
        recipe, _ = training.chosen(args, RECIPES[name.split()[0]])
        known = training.survey(train)
        data = name, train, test, training.hold_out(known, args.val_fraction)
        digest = known.digest + training.survey(test).digest
    settings = dataclasses.asdict(recipe) | {"data": name, "fingerprint": digest}
    training.begin(args, settings, free=("root", "download"))
    title = f"{name}, {args.num_points:,} of {points:,} points"
    say(f"{name}: {len(train):,} training and {len(test):,} test clouds, {len(test.classes)} "
        f"classes, {args.num_points:,} of {points:,} points each")  # fmt: skip
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, recipe, title, data, seed, folder)
    )
    summary = training.summarise(results)
    if args.seeds > 1:
        say(f"{title}, {args.model}, {args.seeds} seeds: test accuracy "
            f"{training.accuracies(summary)} (mean ± standard deviation)")  # fmt: skip
    whole = {"data": name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "*.png", "*.gif"))


# The command line ---------------------------------------------------------------------------------

EPILOG = """examples:
  python examples/modelnet40.py                          HomeObjects, minutes on two cores
  python examples/modelnet40.py --download               ModelNet40, fetched first (435 MB)
  python examples/modelnet40.py --root ~/data --seeds 3  a local ModelNet40, mean and spread
  python examples/modelnet40.py --resume                 go on after Ctrl-C
  torchrun --nproc-per-node 4 examples/modelnet40.py --devices 4 --precision bf16

A run leaves config.json, command.txt, metrics.csv, tensorboard/, checkpoints/, results.json,
model.safetensors with model.json, clusters.png and confusion.png (with --animate clusters.gif,
too) in the --out folder; with --seeds, in one folder a seed. Accuracy is that of the last epoch: no
epoch is picked by it."""


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--root", type=training.nonempty, metavar="FOLDER", help=f"where ModelNet40 is ({ROOT})")
    add("--form", choices=FORMS, default="hdf5", metavar="NAME", help="of ModelNet40: hdf5 (2,048 "
        "points), resampled (10,000) or meshes, whose points are drawn (%(default)s)")  # fmt: skip
    add("--download", action="store_true", help="fetch ModelNet40's HDF5 form if it is not there")
    add("--normals", action="store_true", help="normals as input features")
    add("--animate", action="store_true", help="clusters.gif: how clusters change over the epochs")
    models = [*list_models("pointmlp*"), *list_models("point_*")]
    training.add_cloud_arguments(parser, models, default="point_coc_tiny")
    training.add_settings(parser, RECIPES)
    training.add_machine_arguments(parser, out="runs/modelnet40", workers=0, geometry=True)
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
