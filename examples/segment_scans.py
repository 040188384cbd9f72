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
    from pointcluster.training import say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; `make scene` installs all that training "
             "needs, as does: pip install -e '.[train,scans]'")  # fmt: skip

RECIPES = {
    "Autzen": training.SceneRecipe(epochs=24, batch_size=2),
    "LidarHD": training.SceneRecipe(
        epochs=6, batch_size=2, lr=2.5e-3, voxel_size=1.0, brighten=0.3, weighting=0.35
    ),
    "folder": training.SceneRecipe(),
}
MODELS = list_models(task="segmentation")

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
    add("--features", nargs="*", metavar="NAME", help="of your own scans: "
        f"some of {' '.join(datasets.scenes.CHANNELS)} (what the files have)")  # fmt: skip
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
    if args.data is None:
        return "Autzen", datasets.Autzen("train"), datasets.Autzen("test")
    tiles = [Path(args.data, f"{name}.laz").is_file() for name in datasets.lidar_hd.SHA256]
    if all(tiles):
        return "LidarHD", datasets.LidarHD(args.data), datasets.LidarHD(args.data, "test")
    options: dict[str, Any] = {"classes": named_codes(args.classes), "columns": args.columns}
    train = datasets.SceneFolder(args.data, features=args.features, **options)
    options["classes"] = train.codes
    return "folder", train, datasets.SceneFolder(
        args.data, "test", features=train.features, **options
    )  # fmt: skip


def named_codes(texts: list[str] | None) -> dict[str, list[int]] | None:
    """Classes with their codes, as they are written on the command line."""
    if texts is None:
        return None
    try:
        pairs = [text.split("=") for text in texts]
        return {name: [int(code) for code in codes.split(",")] for name, codes in pairs}
    except ValueError as error:
        raise ValueError(f"--classes {' '.join(texts)}: expected NAME=CODE,... each") from error


def train_and_test(
    args: argparse.Namespace, recipe: training.SceneRecipe, name: str, train: Any, test: Any,
    seed: int, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One run: train, test, save the network, draw the pictures."""
    torch.manual_seed(seed)
    model = create_model(
        args.model, num_classes=len(train.classes), in_channels=train.in_channels, place=False
    )
    collate = training.searching_collate(model, args.geometry, args.workers)
    data = training.SceneDataModule(
        train, test, recipe=recipe, num_workers=args.workers, seed=seed, collate=collate
    )
    codes = [train.codes[kind][0] for kind in train.classes]
    segmenter = training.PointSegmenter(
        model,
        train.classes,
        recipe=recipe,
        edge=data.blocks.edge(recipe.num_points),
        weights=recipe.class_weights(train, len(train.classes)),
        seed=seed,
        preprocessing={"features": list(train.features), "codes": codes},
    )
    metrics = training.fit_and_test(
        segmenter, data, folder=folder, resume=args.resume,
        title=f"{name} seed {seed} " if args.seeds > 1 else f"{name} ", **training.machine(args),
    )  # fmt: skip
    table = training.class_table(segmenter.test_confusion, train.classes)
    result = {"data": name, "model": args.model, "seed": seed, "epochs": recipe.epochs, **metrics}
    if training.is_first_process():
        model = model.cpu().eval()
        notes = {"classes": train.classes, "result": result}
        notes["preprocessing"] = segmenter.preprocessing
        training.write_table(folder / "classes.csv", table)
        told = segment_scene(model, test[0], **segmenter.blocks).argmax(dim=1)
        save_model(folder / "model", model.half() if args.half else model, notes)
        draw(folder / "scene", test[0], told, train.classes)
    for row in table[1:]:
        shares = "  ".join("   none" if value is None else f"{value:7.1%}" for value in row[2:])
        say(f"  {row[0]:20} {row[1]:9,} points   IoU, recall, precision {shares}")
    say(
        f"{name}, {args.model}, seed {seed}: {accuracies(metrics)} (last of {recipe.epochs} epochs)"
    )
    return result


def accuracies(metrics: dict[str, float]) -> str:
    return f"test accuracy {metrics['test_accuracy']:.1%}, mIoU {metrics['test_miou']:.1%}"


def draw(path: Path, scene: Any, told: torch.Tensor, classes: list[str]) -> None:
    """A test scene: its classes, what the network says, and where it is wrong."""
    some = torch.randperm(len(told), generator=torch.Generator().manual_seed(0))
    # A page with very many points turns slowly.
    for suffix, rows in ((".png", some), (".html", some[:50_000])):
        viz.save_labels(
            path.with_suffix(suffix), scene.pos[rows], told[rows], truth=scene.y[rows],
            classes=classes,
        )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    with training.bad_input():  # what is wrong shows here, before training
        name, train, test = load_data(args)
        recipe, _ = training.chosen(args, RECIPES[name])
        digest = training.fingerprint_scenes(train, test)
    settings = dataclasses.asdict(recipe) | {"data": name, "fingerprint": digest}
    training.begin(args, settings, free=("data",))
    points = [sum(len(scene.pos) for scene in scenes) for scenes in (train, test)]
    say(f"{name}: {points[0]:,} points to train on, {points[1]:,} to test on, features "
        f"{', '.join(train.features)}, classes {', '.join(train.classes)}")  # fmt: skip
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, recipe, name, train, test, seed, folder)
    )
    summary = training.summarise(results, ("test_accuracy", "test_miou"))
    if args.seeds > 1:
        overall, miou = map(training.spread, summary.values())
        say(f"{name}, {args.model}, {args.seeds} seeds: test accuracy {overall}, mIoU {miou} "
            "(mean ± standard deviation)")  # fmt: skip
    whole = {"data": name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*", "scene.*", "classes.csv"))


def main() -> int:
    args = parse_arguments()
    return training.program(lambda: run(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
