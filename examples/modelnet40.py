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
RECIPES = {
    "HomeObjects": SMALL,
    "ModelNet40": dataclasses.replace(
        SMALL, epochs=250, batch_size=32, warmup_epochs=25, label_smoothing=0.2
    ),
}
MODELS = [*list_models("pointmlp*"), *list_models("point_*")]

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
    add = parser.add_argument_group("data and network").add_argument
    add("--root", type=training.nonempty, metavar="FOLDER", help="where ModelNet40's files are; "
        f"else they are looked for in {ROOT}, else HomeObjects is used")  # fmt: skip
    add("--form", choices=FORMS, default="hdf5", metavar="NAME", help="of ModelNet40: hdf5 (2,048 "
        "points), resampled (10,000) or meshes, whose points are drawn (%(default)s)")  # fmt: skip
    add("--download", action="store_true", help="fetch ModelNet40's HDF5 form if it is not there")
    add("--num-points", type=training.number(int, 1), default=1024, metavar="N", help="points a "
        "cloud: drawn anew each epoch in training, the first in the test (%(default)s)"
        )  # fmt: skip
    add("--normals", action="store_true", help="normals as input features, where the data have any")
    add("--val-fraction", type=training.number(float, 0, 0.9), default=0.0, metavar="X",
        help="part of the training clouds held out for validation (%(default)s)")  # fmt: skip
    add("--model", choices=MODELS, default=MODELS[-1], metavar="NAME", help=", ".join(MODELS))
    add("--animate", action="store_true",
        help="clusters.gif: how the clusters of four test clouds change over the epochs"
        )  # fmt: skip
    training.add_settings(parser, RECIPES)
    training.add_machine_arguments(parser, out="runs/modelnet40", workers=0, geometry=True)
    return parser.parse_args()


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


def describe(args: argparse.Namespace, name: str, clouds: Any) -> str:
    """What was tested, for every printed result."""
    return f"{name}, {args.num_points:,} of {clouds[0].num_nodes:,} points"


def train_and_test(
    args: argparse.Namespace, recipe: training.PointRecipe, name: str, train: Any, test: Any,
    held: Any, seed: int, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One run: train, test, save the network, draw the pictures."""
    features = [NormalsAsFeatures()] if args.normals else []
    test_transform = Compose([recipe.test_transform(args.num_points), *features])
    torch.manual_seed(seed)
    model = create_model(
        args.model, num_classes=len(train.classes), in_channels=3 if args.normals else 0
    )
    data = training.PointDataModule(
        train,
        test,
        batch_size=recipe.batch_size,
        num_workers=args.workers,
        seed=seed,
        train_transform=Compose([recipe.train_transform(args.num_points), *features]),
        test_transform=test_transform,
        collate=training.searching_collate(model, args.geometry, args.workers),
        out=held,
    )
    preprocessing = recipe.preprocessing(
        args.num_points, sampled=train[0].num_nodes, normalized=True,
        features=("normal",) if args.normals else (),
    )  # fmt: skip
    classifier = training.Classifier(
        model, train.classes, recipe=recipe, seed=seed, preprocessing=preprocessing
    )
    film = []
    if args.animate:  # the first cloud of each of four classes, for a short while
        first = {int(item.y): i for i, item in reversed(list(enumerate(test)))}
        items = [test_transform(test[first[label]].clone()) for label in sorted(first)[:4]]
        names = [train.classes[label].replace("_", " ") for label in sorted(first)[:4]]
        every = max(1, recipe.epochs // 60)
        film = [training.ClusterFilm(folder / "clusters.gif", items, titles=names, every=every)]
    metrics = training.fit_and_test(
        classifier,
        data,
        folder=folder,
        resume=args.resume,
        title=describe(args, name, train) + (f" seed {seed} " if args.seeds > 1 else " "),
        callbacks=tuple(film),
        **training.machine(args),
    )
    result = {"data": name, "num_points": args.num_points, "points": train[0].num_nodes}
    result |= {"model": args.model, "seed": seed, "epochs": recipe.epochs, **metrics}
    heading = f"{describe(args, name, train)}, {args.model}, seed {seed}: "
    if training.is_first_process():
        model = model.cpu().eval()
        notes = {"classes": train.classes, "result": result, "preprocessing": preprocessing}
        save_model(folder / "model", model, notes)
        title = f"{heading}test accuracy {metrics['test_accuracy']:.1%}"
        matrix = classifier.test_confusion.numpy()
        viz.confusion_picture(folder / "confusion.png", matrix, train.classes, heading=title)
        test.transform = test_transform
        viz.model_clusters(
            folder / "clusters.png", model, test, classes=train.classes, heading=title
        )
        test.transform = None
    say(f"{heading}{training.accuracies(metrics)} (last of {recipe.epochs} epochs)")
    return result


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():  # what is wrong shows here, before training
        name, train, test = load_data(args)
        if args.num_points > (points := train[0].num_nodes):
            raise ValueError(f"--num-points is {args.num_points}, {name} has {points} points a "
                             "cloud")  # fmt: skip
        usual = RECIPES["HomeObjects" if name == "HomeObjects" else "ModelNet40"]
        recipe, _ = training.chosen(args, usual)
        known = training.survey(train)
        held = training.hold_out(known, args.val_fraction)
        digest = known.digest + training.survey(test).digest
    settings = dataclasses.asdict(recipe) | {"data": name, "fingerprint": digest}
    training.begin(args, settings, free=("root", "download"))
    say(f"{name}: {len(train):,} training and {len(test):,} test clouds, {len(train.classes)} "
        f"classes, {args.num_points:,} of {points:,} points each")  # fmt: skip
    results = training.each_seed(
        args,
        lambda seed, folder: train_and_test(args, recipe, name, train, test, held, seed, folder),
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
