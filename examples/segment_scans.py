"""Train a network that tells the class of every point of a scan, test it, and draw what it says."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch

    from pointcluster import datasets, training, viz
    from pointcluster.models import create_model, list_models, save_model, segment_scene
    from pointcluster.training import SceneRecipe, say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `make scene` installs all that training "
             "needs, as does: pip install -e '.[train,scans]'")  # fmt: skip

RECIPES = {
    "Autzen": SceneRecipe(epochs=24, batch_size=2),
    "LidarHD": SceneRecipe(epochs=12, batch_size=2, lr=2.5e-3, voxel_size=1.0, brighten=0.3),
    "folder": SceneRecipe(),
}
MODELS = list_models(task="segmentation")
MEASURED = ("test_accuracy", "test_miou")
EPILOG = """examples:
  python examples/segment_scans.py                        the scan that ships, minutes on two cores
  python examples/segment_scans.py --data lidar_hd        the four tiles of LiDAR HD
  python examples/segment_scans.py --data scans --classes ground=2 building=6 "other=1,3,4,5"
  python examples/segment_scans.py --resume               go on after Ctrl-C
  python -m pointcluster.segment runs/segment_scans/model.safetensors scan.laz --out labelled

A folder of one's own has train/* and test/*: .las .laz .ply .pcd .npy ..., a class at every point.
A run leaves config.json, metrics.csv, tensorboard/, checkpoints/, results.json, classes.csv,
model.safetensors with model.json and scene.png in the --out folder. What is measured is the last
epoch, on whole test scans: no epoch is picked by it."""


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("data and network").add_argument
    add("--data", type=training.nonempty, metavar="FOLDER", help="LiDAR HD's tiles, or scans of "
        "your own; without it Autzen is used, which ships")  # fmt: skip
    add("--classes", nargs="+", metavar="NAME=CODE,...", help="of your own scans: the classes, "
        "with the codes in the files; all other codes are ignored (every code is a class)"
        )  # fmt: skip
    add("--features", nargs="*", metavar="NAME", help=f"what the network gets of a point, some of "
        f"{' '.join(datasets.scenes.CHANNELS)} (what the data set has)")  # fmt: skip
    add("--columns", type=training.nonempty, metavar="NAMES", help="of your own tables: what their "
        "columns are, such as 'x y z label'")  # fmt: skip
    add("--model", choices=MODELS, default="point_coc_small_seg", metavar="NAME",
        help=f"{', '.join(MODELS)} (%(default)s)")  # fmt: skip
    add("--half", action="store_true", help="save the weights in half precision, half as large")
    training.add_settings(parser, RECIPES)
    training.add_machine_arguments(parser, out="runs/segment_scans", workers=0, geometry=True)
    return parser.parse_args()


def load_data(args: argparse.Namespace) -> tuple[str, Any, Any]:
    """The scenes to train on and to test on."""
    features = datasets.lidar_hd.FEATURES if args.features is None else args.features
    if args.data is None:
        train, test = (datasets.Autzen(split, features=features) for split in ("train", "test"))
        return "Autzen", train, test
    if all(Path(args.data, f"{name}.laz").is_file() for name in datasets.lidar_hd.SHA256):
        train, test = (
            datasets.LidarHD(args.data, split, features=features) for split in ("train", "test")
        )
        return "LidarHD", train, test
    try:
        pairs = [text.split("=") for text in args.classes or []]
        classes = {name: [int(code) for code in codes.split(",")] for name, codes in pairs}
    except ValueError as error:
        raise ValueError(
            f"--classes {' '.join(args.classes)}: expected NAME=CODE,... each"
        ) from error
    train, test = (
        datasets.SceneFolder(
            args.data, split, classes=classes or None, features=args.features, columns=args.columns
        )
        for split in ("train", "test")
    )
    return "folder", train, test


def train_and_test(
    args: argparse.Namespace, recipe: SceneRecipe, data: tuple[str, Any, Any], seed: int, out: Path
) -> dict[str, Any]:
    """One run: train, test, save the network, draw the pictures."""
    name, train, test = data
    torch.manual_seed(seed)
    model = create_model(
        args.model, num_classes=len(train.classes), in_channels=train.in_channels, place=False
    )
    collate = training.searching_collate(model, args.geometry, args.workers)
    loaders = training.SceneDataModule(
        train, test, recipe=recipe, num_workers=args.workers, seed=seed, collate=collate
    )
    codes = [train.codes[kind][0] for kind in train.classes]
    segmenter = training.PointSegmenter(
        model, train.classes, recipe=recipe, edge=loaders.blocks.edge(recipe.num_points), seed=seed,
        weights=recipe.class_weights(train, len(train.classes)),
        preprocessing={"features": list(train.features), "codes": codes},
    )  # fmt: skip
    metrics = training.fit_and_test(
        segmenter, loaders, folder=out, resume=args.resume,
        title=f"{name} seed {seed} " if args.seeds > 1 else f"{name} ", **training.machine(args),
    )  # fmt: skip
    result = {"data": name, "model": args.model, "seed": seed, "epochs": recipe.epochs, **metrics}
    table = training.class_table(segmenter.test_confusion, train.classes)
    if training.is_first_process():
        training.write_table(out / "classes.csv", table)
        model = model.cpu().eval()
        scene = test[0]
        told = segment_scene(model, scene, **segmenter.blocks).argmax(dim=1)
        notes = {"classes": train.classes, "result": result}
        notes["preprocessing"] = segmenter.preprocessing
        save_model(out / "model", model.half() if args.half else model, notes)
        some = torch.randperm(len(told), generator=torch.Generator().manual_seed(0))
        # A page with very many points turns slowly.
        for suffix, rows in (("png", some), ("html", some[:50_000])):
            viz.save_labels(out / f"scene.{suffix}", scene.pos[rows], told[rows],
                            truth=scene.y[rows], classes=train.classes)  # fmt: skip
    for row in table[1:]:
        shares = "  ".join("   none" if value is None else f"{value:7.1%}" for value in row[2:])
        say(f"  {row[0]:20} {row[1]:9,} points   IoU, recall, precision {shares}")
    accuracy, miou = (metrics[key] for key in MEASURED)
    say(f"{name}, {args.model}, seed {seed}: test accuracy {accuracy:.1%}, mIoU {miou:.1%} "
        f"(last of {recipe.epochs} epochs)")  # fmt: skip
    return result


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():  # what is wrong shows here, before training
        data = name, train, test = load_data(args)
        recipe, _ = training.chosen(args, RECIPES[name])
        digest = training.fingerprint_scenes(train, test)
    settings = dataclasses.asdict(recipe) | {"data": name, "fingerprint": digest}
    training.begin(args, settings, free=("data",))
    points = [sum(len(scene.pos) for scene in scenes) for scenes in (train, test)]
    say(f"{name}: {points[0]:,} points to train on, {points[1]:,} to test on, features "
        f"{', '.join(train.features)}, classes {', '.join(train.classes)}")  # fmt: skip
    results = training.each_seed(
        args, lambda seed, out: train_and_test(args, recipe, data, seed, out)
    )
    summary = training.summarise(results, MEASURED)
    if args.seeds > 1:
        accuracy, miou = map(training.spread, summary.values())
        say(f"{name}, {args.model}, {args.seeds} seeds: test accuracy {accuracy}, mIoU {miou} "
            "(mean ± standard deviation)")  # fmt: skip
    whole = {"data": name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "scene.*", "classes.csv"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
