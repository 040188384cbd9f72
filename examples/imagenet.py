"""Train, validate and use image classifiers that see a picture as a set of points."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch
    from torch import nn

    from pointcluster import training
    from pointcluster.datasets import FashionMNIST, ImageFolder, read_image
    from pointcluster.models import create_model, list_models, save_model
    from pointcluster.nn import BatchNorm
    from pointcluster.training import bad_input, log, say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; training needs: pip install -e "
             "'.[train,image]'")  # fmt: skip

OURS = list_models("coc_*")
# Of the pictures of Fashion-MNIST's training part.
SAMPLE = {
    "input_size": [1, 28, 28],
    "interpolation": "bilinear",
    "mean": [0.286],
    "std": [0.353],
    "crop_pct": 1.0,
    "crop_mode": "center",
}
# Settings that may change when a run is resumed: they do not decide its result.
FREE = ("resume", "out", "data", "fashion_mnist", "workers", "val_every", "accelerator",
        "train", "validate", "predict", "weights")  # fmt: skip

# Packages that decide a result.
DECISIVE = ("pointcluster", "torch", "torchvision", "timm", "lightning", "torchmetrics", "pillow",
            "numpy")  # fmt: skip

EPILOG = """examples:
  python examples/imagenet.py                             Fashion-MNIST, minutes on two cores
  python examples/imagenet.py --seeds 3 --model small_cnn a convolutional network, mean and spread
  python examples/imagenet.py --data ~/imagenet           the published recipe
  torchrun --nproc-per-node 8 examples/imagenet.py --data ~/imagenet --model coc_small \\
      --precision bf16-mixed --out runs/coc_small         on eight GPUs; --nnodes for more machines
  python examples/imagenet.py --data ~/imagenet --resume  go on after Ctrl-C
  python examples/imagenet.py --data ~/imagenet --validate runs/imagenet/model.safetensors
  python examples/imagenet.py --data ~/imagenet --validate coc_tiny.pth.tar --model coc_tiny
  python examples/imagenet.py --predict cat.jpg dog.png --weights runs/imagenet/model.safetensors

A run leaves config.json, command.txt, log.txt, metrics.csv, tensorboard/, checkpoints/,
results.json and model.safetensors with model.json in the --out folder; with --seeds, in one folder
a seed. Accuracy is that of the last epoch: no epoch is picked by it."""


class SmallCNN(nn.Sequential):
    """A small convolutional network to compare with: three stages of two convolutions."""

    def __init__(self, num_classes: int, in_channels: int = 1, width: int = 36) -> None:
        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    BatchNorm(outputs), nn.ReLU()]  # fmt: skip

        layers: list[nn.Module] = []
        for inputs, outputs in [(in_channels, width), (width, 2 * width), (2 * width, 4 * width)]:
            layers += [nn.MaxPool2d(2)] if layers else []
            layers += [*convolution(inputs, outputs), *convolution(outputs, outputs)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes)]
        super().__init__(*layers)
        self.config = {"name": "small_cnn", "num_classes": num_classes, "in_channels": in_channels}


class Pictures(NamedTuple):
    """The two parts of a data set, and what networks get to see of it."""

    name: str
    recipe: str
    train: Any
    test: Any
    config: dict[str, Any] | None  # None: what the network takes


def build(name: str, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
    """A network of the library, or the one to compare with."""
    if name == "small_cnn":
        return SmallCNN(num_classes, in_channels)
    return create_model(name, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_argument_group("task").add_mutually_exclusive_group()
    task.add_argument("--train", action="store_true", help="train and test; the default")
    task.add_argument("--validate", metavar="CHECKPOINT", help="test a network: model.safetensors, "
                      "a run's last.ckpt, or a published file with --model")  # fmt: skip
    task.add_argument("--predict", nargs="+", metavar="IMAGE",
                      help="name what is in pictures, by the network in --weights")  # fmt: skip
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=training.nonempty, metavar="FOLDER",
                      help="ImageNet or the like: train/CLASS/*.JPEG "
                      "and val/CLASS/*.JPEG; without it the bundled part of Fashion-MNIST is "
                      "used")  # fmt: skip
    data.add_argument("--fashion-mnist", type=training.nonempty, metavar="FOLDER",
                      help="Fashion-MNIST's own four files "
                      "instead of the bundled part")  # fmt: skip
    data.add_argument("--img-size", type=training.number(int, 1), metavar="N",
                      help="height and width of what the network gets (its own)")  # fmt: skip
    data.add_argument("--on-error", choices=("raise", "skip"), default="raise", metavar="RULE",
                      help="a picture that cannot be read: raise stops; skip names it and leaves "
                      "it out of the test, and in training takes the next one in its place "
                      "(%(default)s)")  # fmt: skip
    data.add_argument("--limit-batches", type=training.number(int, 1), metavar="N",
                      help="only so many batches of each part, to try a run")  # fmt: skip
    data.add_argument("--val-every", type=training.number(int, 1), metavar="N",
                      help="epochs from one validation to the next (1; 10 for Fashion-MNIST)"
                      )  # fmt: skip
    data.add_argument("--weights", metavar="CHECKPOINT", help="for --predict; as for --validate")
    training.add_recipe_arguments(parser)
    training.add_machine_arguments(parser, out="runs/imagenet")
    args = parser.parse_args()
    if args.predict and not args.weights:
        parser.error("--predict needs --weights")
    if args.data and args.fashion_mnist:
        parser.error("--data and --fashion-mnist: give one of them")
    if args.weights and not args.predict:
        parser.error("--weights is for --predict; --validate names its checkpoint itself")
    known = [*OURS, "small_cnn"]
    if args.model and args.model not in known:
        parser.error(f"--model: there is no {args.model!r}: choose one of {', '.join(known)}")
    return args


def load_data(args: argparse.Namespace, *, train: bool = True) -> Pictures:
    """ImageNet where it was asked for, otherwise the sample of Fashion-MNIST."""
    if args.data is None:
        if args.fashion_mnist is None:
            say("no ImageNet is given (--data FOLDER): using the bundled part of Fashion-MNIST")
        if args.img_size:
            raise ValueError("--img-size needs --data: Fashion-MNIST is 28 x 28")
        first = FashionMNIST(args.fashion_mnist, split="train") if train else ()
        second = FashionMNIST(args.fashion_mnist, split="test")
        return Pictures("Fashion-MNIST", "Fashion-MNIST", first, second, SAMPLE)
    folders = [Path(args.data).expanduser() / part for part in ("train", "val")]
    for folder in folders if train else folders[1:]:
        if not folder.is_dir():
            raise ValueError(f"--data {args.data}: there is no folder {folder}")
    second = ImageFolder(folders[1], on_error="raise" if args.on_error == "raise" else "drop")
    first = ImageFolder(folders[0], on_error=args.on_error) if train else ()
    if train and first.classes != second.classes:
        differ = [f"{name} is only in {'train' if name in first.classes else 'val'}/"
                  for name in sorted({*first.classes} ^ {*second.classes})]  # fmt: skip
        more = "; ..." if len(differ) > 3 else ""
        raise ValueError(f"--data {args.data}: train/ and val/ have other classes: "
                         f"{'; '.join(differ[:3])}{more}")  # fmt: skip
    whole = (len(second.classes), len(second)) == (1000, 50_000)
    name = "ImageNet" if whole else folders[0].resolve().parent.name
    return Pictures(name, "ImageNet", first, second, None)


def make_network(args: argparse.Namespace, recipe: training.ImageRecipe, data: Pictures):
    """A fresh network and what it takes; what does not fit shows here."""
    channels = data.config["input_size"][0] if data.config else 3
    model = build(recipe.model, len(data.test.classes), channels, recipe.drop_path)
    config = data.config or training.data_config(model, img_size=args.img_size)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *config["input_size"]))
    return model.train(), config


def prepare(args: argparse.Namespace) -> tuple[Pictures, training.ImageRecipe]:
    """Data, recipe and output folder: what is wrong with them shows here, before training."""
    with bad_input():
        data = load_data(args)
        items = len(data.train) // training.processes(args.devices)
        recipe, followed = training.chosen_recipe(args, training.RECIPES[data.recipe], items)
        model, config = make_network(args, recipe, data)
        training.train_transform(recipe, config)
    if args.workers is None:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        args.workers = min(8, (os.cpu_count() or 1) // here) if args.data else 0
    settings = dataclasses.asdict(recipe) | {
        "data": data.name,
        "images": [len(data.train), len(data.test)],
        "classes": list(data.test.classes),
        "network": model.config,
        "data_config": config,
        # A folder of the same name may hold other pictures when a run is resumed.
        "fingerprint": training.fingerprint_images(data.train, data.test),
    }
    training.begin(args, settings, free=FREE, packages=DECISIVE)
    if followed:
        log(args, f"for {len(data.train):,} training images and {recipe.epochs} epochs: "
            + ", ".join(followed))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log(args, f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images, "
        f"{len(data.test.classes):,} classes; {recipe.model}, {parameters / 1e6:.2f}M "
        f"parameters, images of {' x '.join(map(str, config['input_size']))}")  # fmt: skip
    return data, recipe


def train_and_test(
    args: argparse.Namespace, data: Pictures, recipe: training.ImageRecipe, seed: int, folder: Path
) -> dict[str, Any]:
    """One run: train, test, save the network."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, config = make_network(args, recipe, data)
    classifier = training.ImageClassifier(
        model,
        data.test.classes,
        recipe=recipe,
        data_config=config,
        seed=seed,
        say=lambda text: log(args, text),
    )
    loaders = training.ImageDataModule(
        data.train,
        data.test,
        train_transform=training.train_transform(recipe, config),
        test_transform=training.eval_transform(config),
        batch_size=recipe.batch_size,
        num_workers=args.workers,
        seed=seed,
    )
    metrics = training.fit_and_test(
        classifier,
        loaders,
        folder=folder,
        epochs=recipe.epochs,
        resume=args.resume,
        accelerator=args.accelerator,
        devices=args.devices,
        precision=args.precision,
        accumulate=recipe.accumulate,
        clip_grad=recipe.clip_grad,
        limit_batches=args.limit_batches,
        val_every=args.val_every or (1 if args.data else 10),
        title=f"{data.name} seed {seed} " if args.seeds > 1 else f"{data.name} ",
        say=lambda text: log(args, text),
    )
    result = {"data": data.name, "model": recipe.model, "seed": seed, "epochs": recipe.epochs}
    counted = int(classifier.test_confusion.sum())
    result |= {**metrics, "test_images": counted, "seconds": round(time.perf_counter() - began, 1)}
    if training.is_first_process() and recipe.model in OURS:
        save_model(
            folder / "model",
            classifier.evaluated().cpu().eval(),
            {"classes": classifier.classes, "data_config": config, "result": result},
        )
    log(args, f"{data.name}, {recipe.model}, seed {seed}: {accuracies(metrics)} "
        f"{left_out(args, data, counted)}(last of {recipe.epochs} epochs), "
        f"{result['seconds']:.0f} s")  # fmt: skip
    return result


def run(args: argparse.Namespace) -> None:
    """All seeds, and what they say together."""
    data, recipe = prepare(args)
    results = training.each_seed(
        args, lambda seed, folder: train_and_test(args, data, recipe, seed, folder)
    )
    keys = [key for key in ("test_accuracy", "test_top5_accuracy") if key in results[0]]
    summary = training.summarise(results, keys)
    if args.seeds > 1:
        log(args, f"{data.name}, {recipe.model}, {args.seeds} seeds: top-1 "
            + ", top-5 ".join(map(training.spread, summary.values()))
            + " (mean ± sample standard deviation)")  # fmt: skip
    whole = {"data": data.name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*",))


def validate(args: argparse.Namespace) -> None:
    """Top-1 and top-5 of a checkpoint on val/, or on the sample's test part."""
    trained = training.read_network(args.validate, build=build, name=args.model)
    with bad_input():
        data = load_data(args, train=False)
    classes, expected = list(data.test.classes), trained.classes
    if (number := trained.model.config["num_classes"]) != len(classes):
        raise training.RunError(f"{args.validate} knows {number:,} classes, {data.name} has "
                                f"{len(classes):,}")  # fmt: skip
    if expected not in (None, classes):
        pairs = zip(expected, classes, strict=True)
        first = next(pair for pair in pairs if pair[0] != pair[1])
        raise training.RunError(f"{args.validate} was trained on other classes: it knows "
                                f"{first[0]!r} where {data.name} has {first[1]!r}")  # fmt: skip
    config = trained.data_config
    if args.img_size:
        config = config | {"input_size": [config["input_size"][0], args.img_size, args.img_size]}
    recipe = training.ImageRecipe(batch_size=args.batch_size or 128, mixup=0.0, cutmix=0.0)
    loaders = training.ImageDataModule(
        data.train,
        data.test,
        train_transform=training.eval_transform(config),
        test_transform=training.eval_transform(config),
        batch_size=recipe.batch_size,
        num_workers=args.workers or 0,
    )
    classifier = training.ImageClassifier(trained.model, classes, recipe=recipe, data_config=config)
    metrics = training.evaluate(
        classifier,
        loaders,
        accelerator=args.accelerator,
        devices=args.devices,
        precision=args.precision,
        limit_batches=args.limit_batches,
    )
    counted, (_, height, width) = int(classifier.test_confusion.sum()), config["input_size"]
    say(f"{data.name}, {trained.model.config['name']}, {counted:,} images of {height} x {width} "
        f"{left_out(args, data, counted)}".rstrip() + f": {accuracies(metrics)}")  # fmt: skip


def predict(args: argparse.Namespace) -> None:
    """The likeliest classes of pictures."""
    trained = training.read_network(args.weights, build=build, name=args.model)
    transform = training.eval_transform(trained.data_config)
    names = describe(trained.classes, trained.model.config["num_classes"])
    mode = "L" if trained.data_config["input_size"][0] == 1 else "RGB"
    for path in args.predict:
        with bad_input():
            image = transform(read_image(path).convert(mode))
        with torch.inference_mode():
            shares = trained.model(image[None]).float().softmax(1)[0]
        say(path)
        for share, number in zip(*shares.topk(min(5, len(names))), strict=True):
            say(f"  {share:6.1%}  {names[int(number)]}")


def describe(classes: Sequence[str] | None, number: int) -> list[str]:
    """Names of the classes, in words where they are ImageNet's numbers."""
    with training.installed_by("image"):
        from timm.data import ImageNetInfo
    info = ImageNetInfo("imagenet-22k")
    words = info.label_descriptions(as_dict=True)
    if classes is None and number == 1000:  # a published network
        classes = ImageNetInfo().label_names()
    return [words.get(name, name) for name in classes or map(str, range(number))]


def accuracies(metrics: dict[str, float]) -> str:
    top5 = metrics.get("test_top5_accuracy")
    text = f"top-1 {metrics['test_accuracy']:.1%}"
    return text if top5 is None else f"{text}, top-5 {top5:.1%}"


def left_out(args: argparse.Namespace, data: Pictures, counted: int) -> str:
    """How many test pictures could not be read, if any."""
    number = 0 if args.limit_batches else len(data.test) - counted
    return f"({number:,} of {len(data.test):,} unreadable, left out) " if number else ""


def main() -> int:
    args = parse_arguments()
    task = predict if args.predict else validate if args.validate else run
    return training.program(lambda: task(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
