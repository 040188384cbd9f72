"""The networks of others and of this library on HomeObjects: accuracy, size and training time.

All get the same clouds, epochs, augmentations, optimiser, schedule and number of points: those of
examples/modelnet40.py. Accuracy is that of the last epoch, over several seeds. Each run is written
to the results as it ends, and a run that is there already is not trained again; one that was cut
short goes on from its last whole epoch. Several processes may share the work: give each its own
--models, and run once more with all of them for the table.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, flops, machine, table, write
from peer_networks import DGCNN, PointMLP, PointNet, PointNet2
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose

from pointcluster import training, transforms
from pointcluster.datasets import HomeObjects
from pointcluster.models import create_model, list_models

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))

import modelnet40  # noqa: E402  (the example, for its recipe)

METRICS = ("test_accuracy", "test_mean_class_accuracy")
PEERS: dict[str, Callable[[int], nn.Module]] = {
    "pointnet": PointNet,
    "pointnet2": PointNet2,
    "dgcnn": DGCNN,
    "pointmlp": PointMLP,
}


def create(name: str, num_classes: int) -> nn.Module:
    """A peer, or a network of this library."""
    if name in PEERS:
        return PEERS[name](num_classes)
    return create_model(name, num_classes=num_classes)


def work(model: nn.Module, points: int) -> float:
    """GFLOP of one cloud."""
    generator = torch.Generator().manual_seed(0)
    cloud = Batch.from_data_list([Data(pos=torch.rand(points, 3, generator=generator))])
    training_mode = model.training
    model.eval()
    with torch.no_grad():
        count = flops(lambda: model(cloud))
    model.train(training_mode)
    return count / 1e9


class Classifier(training.Classifier):
    """The example's training, with what a network adds to the loss."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + getattr(self.model, "penalty", 0.0)


# The runs ----------------------------------------------------------------------------------------


def recipe() -> argparse.Namespace:
    """What examples/modelnet40.py trains HomeObjects with unless told otherwise."""
    parser = training.Parser()
    training.add_training_arguments(parser, models=list_models("point_*"), out="")
    args = parser.parse_args([])
    for name, value in modelnet40.RECIPES["HomeObjects"].items():
        setattr(args, name, value)
    return args


def parse_arguments(
    argv: Sequence[str] | None = None,
    *,
    models: Sequence[str] = ("point_coc_tiny", "pointnet", "dgcnn"),
    description: str | None = __doc__,
) -> argparse.Namespace:
    usual = recipe()
    names = [*list_models("point*"), *PEERS]
    parser = training.Parser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    count = training.number(int, 1)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=names,
        metavar="NAME",
        default=list(models),
        help=f"the first is compared with the others: {', '.join(names)}",
    )
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs a network")
    parser.add_argument(
        "--epochs",
        type=count,
        default=usual.epochs,
        metavar="N",
        help="how often each cloud is seen",
    )
    parser.add_argument(
        "--num-points", type=count, default=1024, metavar="N", help="points a cloud"
    )
    parser.add_argument(
        "--batch-size", type=count, default=usual.batch_size, metavar="N", help="clouds a step"
    )
    parser.add_argument(
        "--lr",
        nargs="+",
        type=rate,
        default=[],
        metavar="NAME=X",
        help=f"highest learning rate of a network instead of {usual.lr:g}",
    )
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help="where the figures and the page are written",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs", "peers"),
        metavar="FOLDER",
        help="where the runs themselves are",
    )
    args = parser.parse_args(argv)
    args.lr = dict(args.lr)
    if unknown := set(args.lr) - set(args.models):
        parser.error(f"argument --lr: {', '.join(sorted(unknown))} not among --models")
    return args


def rate(text: str) -> tuple[str, float]:
    """A network's learning rate: NAME=X."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected NAME=X") from error


def train_transform(usual: argparse.Namespace, num_points: int) -> Compose:
    """The example's augmentation."""
    args = argparse.Namespace(**vars(usual) | {"num_points": num_points})
    return Compose(modelnet40.augmentation(args))


def settings_of(name: str, seed: int, args: argparse.Namespace, classes: int) -> dict[str, Any]:
    """All that decides a run's result."""
    usual = recipe()
    model = create(name, classes)
    return {
        "data": "HomeObjects",
        "model": name,
        "seed": seed,
        "epochs": args.epochs,
        "num_points": args.num_points,
        "batch_size": args.batch_size,
        "lr": args.lr.get(name, usual.lr),
        "weight_decay": usual.weight_decay,
        "label_smoothing": usual.label_smoothing,
        "augmentation": repr(train_transform(usual, args.num_points)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop": round(work(model, args.num_points), 6),
    }


def train_and_test(
    settings: dict[str, Any], args: argparse.Namespace, train: HomeObjects, test: HomeObjects
) -> dict[str, Any]:
    """One run: its settings, the two test accuracies of the last epoch, seconds of training."""
    seed = settings["seed"]
    data = training.PointDataModule(
        train,
        test,
        batch_size=settings["batch_size"],
        seed=seed,
        train_transform=train_transform(recipe(), settings["num_points"]),
        test_transform=Compose([transforms.FirstPoints(settings["num_points"])]),
    )
    torch.manual_seed(seed)
    classifier = Classifier(
        create(settings["model"], len(train.classes)),
        train.classes,
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        label_smoothing=settings["label_smoothing"],
        seed=seed,
    )
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / f"{settings['model']}-seed-{seed}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    metrics = training.fit_and_test(
        classifier,
        data,
        folder=folder,
        epochs=settings["epochs"],
        resume=True,
        accelerator=args.accelerator,
        devices=1,
        title=f"{settings['model']} seed {seed} ",
    )
    with open(folder / "metrics.csv", newline="") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    return settings | metrics | {"train_seconds": round(seconds, 1), "machine": machine()}


def main(argv: Sequence[str] | None = None) -> int:
    return compare(parse_arguments(argv), "peers", "Peers on HomeObjects")


def compare(args: argparse.Namespace, stem: str, title: str) -> int:
    """Train what has not been trained yet, and write a page of all runs."""
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    path = args.out / f"{stem}.json"
    runs = []
    try:
        for seed in range(args.seeds):
            for name in args.models:
                settings = settings_of(name, seed, args, len(train.classes))
                found = [run for run in read(path) if settings.items() <= run.items()]
                if not found:
                    found = [train_and_test(settings, args, train, test)]
                    write(path, json.dumps({"runs": read(path) + found}, indent=2) + "\n")
                runs += found[:1]
                print(
                    f"{name} seed {seed}: test accuracy {found[0]['test_accuracy']:.1%} overall, "
                    f"{found[0]['test_mean_class_accuracy']:.1%} mean over classes",
                    flush=True,
                )
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    text = page(title, runs, args.models, len(test))
    write(args.out / f"{stem}.md", text)
    print(text)
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The runs so far; read again each time, as another process may add to them."""
    return json.loads(path.read_text())["runs"] if path.exists() else []


def page(
    title: str, runs: Sequence[dict[str, Any]], models: Sequence[str], test_clouds: int
) -> str:
    """The table of all runs, and by how much the first network is ahead of the others."""
    rows, means = [], {}
    for name in models:
        own = [run for run in runs if run["model"] == name]
        summary = training.summarise(own)
        overall, classes = (summary[key] for key in METRICS)
        means[name] = (overall["mean"], classes["mean"])
        rows.append(
            [
                name,
                f"{own[0]['parameters'] / 1e6:.2f}M",
                f"{own[0]['gflop']:.3f}",
                spread(overall),
                spread(classes),
                f"{statistics.fmean(run['train_seconds'] for run in own):,.0f}",
                f"{own[0]['lr']:g}",
            ]
        )
    first, *others = models
    ahead = [
        f"- {first} is {describe(means[first][0] - means[name][0])} {name} overall and "
        f"{describe(means[first][1] - means[name][1])} it in the mean over classes."
        for name in others
    ]
    one, seeds = runs[0], len({run["seed"] for run in runs})
    header = [
        "network",
        "parameters",
        "GFLOP",
        "overall, %",
        "mean over classes, %",
        "training, s",
        "highest learning rate",
    ]
    parts = [
        f"# {title}",
        f"{one['epochs']} epochs, {one['num_points']:,} points a cloud, batches of "
        f"{one['batch_size']}, AdamW with weight decay {one['weight_decay']:g} and a cosine "
        f"schedule, label smoothing {one['label_smoothing']:g}, augmentation "
        f"{one['augmentation']}, the same for all. Test accuracy of the last epoch, mean ± "
        f"standard deviation over {seeds} seed{'s' * (seeds > 1)}; one of the {test_clouds} test "
        f"clouds is {100 / test_clouds:.1f} percentage points. GFLOP: one cloud, inference.",
        "Trained on " + "; ".join(sorted({run["machine"] for run in runs})) + ".",
        table(header, rows),
        "\n".join(ahead),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def spread(values: dict[str, float | None]) -> str:
    text = f"{100 * values['mean']:.1f}"
    return text if values["std"] is None else f"{text} ± {100 * values['std']:.1f}"


def describe(difference: float) -> str:
    return f"{abs(100 * difference):.1f} points {'ahead of' if difference >= 0 else 'behind'}"


if __name__ == "__main__":
    sys.exit(main())
