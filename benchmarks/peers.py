"""The networks of others and of this library on HomeObjects: accuracy, size, speed and memory.

All get the same clouds, epochs, augmentations, optimiser, schedule and number of points: those of
examples/modelnet40.py. Accuracy is that of the last epoch, over several seeds. Each run is written
to the results as it ends, and a run that is there already is not trained again; one that was cut
short goes on from its last whole epoch. Several processes may share the work: give each its own
--models, and run once more with all of them for the page. At its end the networks are timed, one
after the other in turn: inference and a training step, searches included. With --folds no test
cloud is used: what a design is chosen by.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cloud_calls import calls_of, clouds, step_memory
from filelock import FileLock
from measure import (
    RESULTS,
    flops,
    in_child,
    machine,
    medians,
    picture,
    write,
)
from peer_networks import DGCNN, PointMLP, PointNet, PointNet2
from peer_page import METRICS, draw, page
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pointcluster import training
from pointcluster.datasets import HomeObjects
from pointcluster.models import create_model, list_models

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))

import modelnet40  # noqa: E402  (the example, for its recipe)

PEERS: dict[str, Callable[[int], nn.Module]] = {
    "pointnet": PointNet,
    "pointnet2": PointNet2,
    "dgcnn": DGCNN,
    "pointmlp": PointMLP,
}


POINTS = 2048
"""Points of an object of HomeObjects."""


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


def recipe(**changes: Any) -> training.PointRecipe:
    """What examples/modelnet40.py trains HomeObjects with unless told otherwise."""
    usual = modelnet40.RECIPES["HomeObjects"]
    epochs = changes.get("epochs", usual.epochs)
    warmup = usual.warmup_epochs * epochs // usual.epochs
    return dataclasses.replace(usual, warmup_epochs=warmup, **changes)


def parse_arguments(
    argv: Sequence[str] | None = None,
    *,
    models: Sequence[str] = (
        "point_coc_small",
        "point_coc_tiny",
        "pointnet",
        "pointnet2",
        "dgcnn",
        "pointmlp",
        "pointmlp_coc",
    ),
    description: str | None = __doc__,
    out: Path = RESULTS,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> argparse.Namespace:
    usual = recipe()
    names = [*list_models("point*"), *PEERS]
    parser = training.Parser(
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=list(parents),
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
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=seeds,
        default=[("", 3)],
        metavar="N",
        help="runs a network (3), and NAME=N for those that get another number",
    )
    parser.add_argument(
        "--epochs",
        type=count,
        default=usual.epochs,
        metavar="N",
        help="how often each cloud is seen",
    )
    parser.add_argument(
        "--num-points",
        type=training.number(int, 1, POINTS),
        default=1024,
        metavar="N",
        help="points a cloud",
    )
    parser.add_argument(
        "--folds",
        type=training.number(int, 2, 8),
        metavar="K",
        help="train K times on all training clouds but a Kth, and test on that (default: on the "
        "test clouds)",
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
    parser.add_argument(
        "--untrained",
        nargs="+",
        choices=names,
        metavar="NAME",
        default=[],
        help="which of the networks to time only, where training would take too long",
    )
    parser.add_argument(
        "--budget",
        type=training.number(float, 0),
        default=10.0,
        metavar="S",
        help="seconds for timing each call; 0: time nothing",
    )
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    parser.add_argument(
        "--out",
        type=Path,
        default=out,
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
    args.command = sys.argv[1:] if argv is None else argv
    untrained = [(name, None) for name in args.untrained]
    for option, given in (("lr", args.lr), ("seeds", args.seeds), ("untrained", untrained)):
        names = [name for name, _ in given]
        if unknown := set(names) - {"", *args.models}:
            parser.error(f"argument --{option}: {', '.join(sorted(unknown))} not among --models")
        if twice := [name or "all networks" for name in names if names.count(name) > 1]:
            parser.error(f"argument --{option}: {twice[0]} given twice")
    args.lr, args.seeds = dict(args.lr), {"": 3} | dict(args.seeds)
    if not set(args.models) - set(args.untrained):
        parser.error("argument --untrained: no network is left to train")
    return args


def seeds(text: str) -> tuple[str, int]:
    """A number of runs, of one network, NAME=N, or of all that are not named: N."""
    name, _, value = text.rpartition("=")
    return name, training.number(int, 1)(value)


def rate(text: str) -> tuple[str, float]:
    """A network's learning rate: NAME=X."""
    name, _, value = text.rpartition("=")
    try:
        found = training.number(float, 0, 1000)(value)
    except ValueError:
        name = ""
    if not name:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected NAME=X")
    return name, found


def settings_of(
    name: str, seed: int, args: argparse.Namespace, classes: int, fold: int | None = None
) -> dict[str, Any]:
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
        "augmentation": repr(usual.train_transform(args.num_points)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop": round(work(model, args.num_points), 6),
        **({} if fold is None else {"folds": args.folds, "fold": fold}),
    }


def without_fold(data: HomeObjects, folds: int, fold: int) -> tuple[HomeObjects, HomeObjects]:
    """Training clouds without a fold, and the fold: of each class a part, always the same.

    Near-identical models, those of one `group`, are in one fold.
    """
    labels, groups = [int(item.y) for item in data], [int(item.group) for item in data]
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(5)).tolist()
    names = sorted(members)
    # The largest groups first, each into the fold that has the fewest of its class.
    place, sizes = {}, {(label, number): 0 for label in set(labels) for number in range(folds)}
    for name in sorted((names[i] for i in order), key=lambda name: -len(members[name])):
        label = labels[members[name][0]]
        place[name] = min(range(folds), key=lambda number: sizes[label, number])
        sizes[label, place[name]] += len(members[name])
    held = torch.tensor([place[group] == fold for group in groups])
    return data[(~held).nonzero().flatten()], data[held.nonzero().flatten()]


def train_and_test(
    settings: dict[str, Any], args: argparse.Namespace, train: HomeObjects, test: HomeObjects
) -> dict[str, Any]:
    """One run: its settings, the two test accuracies of the last epoch, seconds of training."""
    seed, title = settings["seed"], f"{settings['model']} seed {settings['seed']} "
    own = recipe(**{name: settings[name] for name in ("epochs", "batch_size", "lr")})
    if "fold" in settings:
        train, test = without_fold(train, settings["folds"], settings["fold"])
        title += f"fold {settings['fold']} "
    data = training.PointDataModule(
        train,
        test,
        batch_size=settings["batch_size"],
        seed=seed,
        train_transform=own.train_transform(settings["num_points"]),
        test_transform=own.test_transform(settings["num_points"]),
    )
    torch.manual_seed(seed)
    classifier = Classifier(
        create(settings["model"], len(train.classes)),
        train.classes,
        recipe=own,
        seed=seed,
    )
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / f"{settings['model']}-seed-{seed}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    metrics = training.fit_and_test(
        classifier,
        data,
        folder=folder,
        resume=True,
        accelerator=args.accelerator,
        devices=1,
        title=title,
    )
    with open(folder / "metrics.csv", newline="") as file:
        seconds = sum(float(row["seconds"]) for row in csv.DictReader(file))
    told = {"tested": len(test), "train_seconds": round(seconds, 1), "machine": machine()}
    return settings | metrics | told


def main(argv: Sequence[str] | None = None) -> int:
    return compare(parse_arguments(argv), "peers", "Peers on HomeObjects")


def compare(args: argparse.Namespace, stem: str, title: str, program: str = "peers") -> int:
    """Train what has not been trained yet, time the networks, and write a page of all."""
    train, test = HomeObjects(split="train"), HomeObjects(split="test")
    stem, title = (f"{stem}_folds", f"{title}, by folds") if args.folds else (stem, title)
    path = args.out / f"{stem}.json"
    folds: Sequence[int | None] = range(args.folds) if args.folds else [None]
    args.work.mkdir(parents=True, exist_ok=True)
    runs = []
    try:
        wanted = {name: args.seeds.get(name, args.seeds[""]) for name in args.models}
        every = itertools.product(range(max(wanted.values())), args.models, folds)
        for seed, name, fold in every:
            if name not in args.untrained and seed < wanted[name]:
                settings = settings_of(name, seed, args, len(train.classes), fold)
                found = [run for run in read(path) if settings.items() <= run.items()]
                if not found:
                    found = [train_and_test(settings, args, train, test)]
                    with FileLock(args.work / f"{stem}.lock"):  # another process may add, too
                        write(path, json.dumps({"runs": read(path) + found}, indent=2) + "\n")
                runs += found[:1]
                print(
                    f"HomeObjects, {args.num_points:,} points, {name} seed {seed}: "
                    + ("test" if fold is None else f"fold {fold} of {args.folds},")
                    + f" accuracy {found[0]['test_accuracy']:.1%} overall, "
                    f"{found[0]['test_mean_class_accuracy']:.1%} mean over classes",
                    flush=True,
                )
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last whole epoch", file=sys.stderr)
        return 130
    runs = over_folds(runs)
    rows = figures(args, runs, len(train.classes))
    image = f"{stem}.png" if args.budget else ""
    if image:
        picture(args.out / image, lambda figure: draw(figure, rows, list_models()), size=(7, 4.2))
    command = f"`{shlex.join(['python', f'benchmarks/{program}.py', *args.command])}`"
    tested = len(train if args.folds else test)
    text = page(title, runs, rows, tested, recipe().lr, command, image)
    write(args.out / f"{stem}.md", text)
    print(text)
    return 0


def over_folds(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One run a network and seed: the mean over its folds' clouds, where there are folds."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["model"], run["seed"]), []).append(run)
    rows = []
    for of_one in groups.values():
        counts = [run.get("tested", 1) for run in of_one]
        row = of_one[0] | {"machine": "; ".join(sorted({run["machine"] for run in of_one}))}
        for key in METRICS:
            shares = (n * run[key] for n, run in zip(counts, of_one, strict=True))
            row[key] = sum(shares) / sum(counts)
        rows.append(row)
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """The runs so far; read again each time, as another process may add to them."""
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text())["runs"])
    except (ValueError, KeyError, TypeError):
        sys.exit(f"error: {path} is damaged: restore it, or delete it to train all anew")


def figures(
    args: argparse.Namespace, runs: Sequence[dict[str, Any]], classes: int
) -> dict[str, dict[str, Any]]:
    """Of each network its size, the spread of its accuracies, its speeds and its memory."""
    rows: dict[str, dict[str, Any]] = {}
    for name in args.models:
        own = [run for run in runs if run["model"] == name]
        rows[name] = settings_of(name, 0, args, classes) | (training.summarise(own) if own else {})
        rows[name]["runs"] = len(own)
    if not args.budget:
        return rows
    batch = clouds(args.batch_size, args.num_points)
    calls = {}
    for name in args.models:
        of_one = calls_of(create(name, classes), batch)
        calls |= {(name, what): of_one[what] for what in ("inference", "training")}
    for (name, what), seconds in medians(calls, repeats=30, budget=args.budget).items():
        rows[name][what] = args.batch_size / seconds
    for name in args.models:
        rows[name]["memory"] = in_child(step_memory, create, name, args.batch_size, args.num_points)
    return rows


if __name__ == "__main__":
    sys.exit(main())
