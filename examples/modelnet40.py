"""Train a classifier of 3D objects, test it, and draw the clusters it works with.

examples:
  python examples/modelnet40.py                          HomeObjects, minutes on two cores
  python examples/modelnet40.py --download               ModelNet40, fetched first (435 MB)
  python examples/modelnet40.py --root ~/data --seeds 3  a local ModelNet40, mean and spread
  python examples/modelnet40.py --resume                 go on after Ctrl-C
  torchrun --nproc-per-node 4 examples/modelnet40.py --devices 4 --precision bf16

A run leaves config.json, command.txt, metrics.csv, tensorboard/, checkpoints/, results.json,
model.safetensors with model.json, clusters.png and confusion.png (with --animate clusters.gif,
too) in the --out folder; with --seeds, in one folder a seed. Accuracy is that of the last epoch: no
epoch is picked by it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

try:
    import torch

    from pointcluster import training, viz
    from pointcluster.datasets import HomeObjects, ModelNet40
    from pointcluster.datasets.modelnet40 import FORMS, find_modelnet40
    from pointcluster.models import create_model, list_models
    from pointcluster.training import say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `make modelnet40` installs all that training "
             "needs, as does: pip install -e '.[train]'")  # fmt: skip

ROOT = os.path.relpath(Path(__file__).resolve().parents[1] / "datasets" / "modelnet40")
SMALL = training.POINT_RECIPES["small"]
LARGE = {"epochs": 250, "batch_size": 32, "warmup_epochs": 25, "label_smoothing": 0.2}
RECIPES = {"HomeObjects": SMALL, "ModelNet40": dataclasses.replace(SMALL, **LARGE)}


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(doc=__doc__)
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


def load_data(args: argparse.Namespace) -> training.Clouds:
    """The two splits: ModelNet40 where it is or was asked for, otherwise HomeObjects."""
    if args.root or args.download or find_modelnet40(ROOT, args.form):
        root, options = args.root or ROOT, {"form": args.form, "normals": args.normals}
        train = ModelNet40(root, "train", download=args.download, **options)
        test = ModelNet40(root, "test", **options)
        return training.Clouds(train.name, train, test, train[0].num_nodes)
    if args.form != "hdf5":
        raise ValueError(f"--form {args.form}: it is not in {ROOT}, and --root names no folder")
    say(f"ModelNet40 is not in {ROOT}, and neither --root nor --download asks for it: "
        "training on HomeObjects")  # fmt: skip
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    return training.Clouds("HomeObjects", train, test, train[0].num_nodes)


def run(args: argparse.Namespace) -> None:
    # Data: what is wrong with them shows here, before training.
    with training.bad_input():
        data = load_data(args)
        if args.epochs and args.warmup_epochs is None:
            args.warmup_epochs = args.epochs // 10  # as in both recipes
        recipe, _ = training.chosen(args, RECIPES[data.name.split()[0]])
        held, digest = data.look_through(args.num_points, args.val_fraction)
    settings = dataclasses.asdict(recipe) | {"data": data.name, "fingerprint": digest}
    training.begin(args, settings, free=("root", "download"))
    say(f"{data.name}: {data.counted()}, {args.num_points:,} of {data.points:,} points each")
    augment = recipe.train_transform(args.num_points, normals=args.normals)
    plain = recipe.test_transform(args.num_points, normals=args.normals)
    prepared = recipe.preprocessing(
        args.num_points, sampled=data.points, features=["normal"] if args.normals else []
    )
    classes, title = data.classes, data.title(args.num_points)

    results = []
    for seed, folder in training.seeds(args, results):
        # The network, and its batches.
        torch.manual_seed(seed)
        channels = 3 if args.normals else 0
        model = create_model(args.model, num_classes=len(classes), in_channels=channels)
        batches = training.PointDataModule(
            data.train, data.test, out=held, train_transform=augment, test_transform=plain,
            **training.loading(args, recipe, model, seed),
        )  # fmt: skip
        # Training, and a test by the weights of the last epoch.
        classifier = training.Classifier(
            model, classes, recipe=recipe, seed=seed, preprocessing=prepared
        )
        film, file = [], folder / "clusters.gif"
        if args.animate:
            film.append(training.film_of_classes(file, data.test, classes, plain, recipe.epochs))
        metrics = training.fit_and_test(
            classifier, batches, folder=folder, resume=args.resume, callbacks=film,
            title=f"{title} seed {seed} " if args.seeds > 1 else f"{title} ",
            **training.machine(args),
        )  # fmt: skip
        result = {"data": data.name, "num_points": args.num_points, "points": data.points}
        result |= {"model": args.model, "seed": seed, "epochs": recipe.epochs, **metrics}
        results.append(result)
        classifier.save(folder, result)
        # Pictures.
        heading = f"{title}, {args.model}, seed {seed}: test accuracy "
        if training.is_first_process():
            look = {"classes": classes, "heading": f"{heading}{metrics['test_accuracy']:.1%}"}
            counts = classifier.test_confusion.numpy()
            viz.confusion_picture(folder / "confusion.png", counts, **look)
            clouds = [plain(cloud) for cloud in data.test]
            viz.model_clusters(folder / "clusters.png", model, clouds, **look)
        say(f"{heading}{training.accuracies(metrics)} (last of {recipe.epochs} epochs)")

    summary = training.summarise(results)
    if args.seeds > 1:
        say(f"{title}, {args.model}, {args.seeds} seeds: test accuracy "
            f"{training.accuracies(summary)} (mean ± standard deviation)")  # fmt: skip
    whole = {"data": data.name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "*.png", "*.gif"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
