"""Train, validate and use image classifiers that see a picture as a set of points.

examples:
  python examples/imagenet.py                             Fashion-MNIST, minutes on two cores
  python examples/imagenet.py --seeds 3 --model small_cnn a convolutional network, mean and spread
  python examples/imagenet.py --data ~/imagenet           the published recipe
  torchrun --nproc-per-node 8 examples/imagenet.py --data ~/imagenet --model coc_small \\
      --precision bf16 --out runs/coc_small               on eight GPUs; --nnodes for more machines
  python examples/imagenet.py --data ~/imagenet --resume  go on after Ctrl-C
  python examples/imagenet.py --data ~/imagenet --validate runs/imagenet/model.safetensors
  python examples/imagenet.py --data ~/imagenet --validate coc_tiny.pth.tar --model coc_tiny
  python examples/imagenet.py --predict cat.jpg dog.png --weights runs/imagenet/model.safetensors

A run leaves config.json, command.txt, log.txt, metrics.csv, tensorboard/, checkpoints/,
results.json and model.safetensors with model.json in the --out folder; with --seeds, in one folder
a seed. Accuracy is that of the last epoch: no epoch is picked by it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

try:
    import torch
    from torch import nn

    from pointcluster import training
    from pointcluster.datasets import FashionMNIST
    from pointcluster.models import create_model, list_models
    from pointcluster.nn import BatchNorm
    from pointcluster.training import bad_input, log, say
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed; training needs: pip install -e "
             "'.[train,image]'")  # fmt: skip

# Of the pictures of Fashion-MNIST's training part.
SAMPLE = {"input_size": [1, 28, 28], "interpolation": "bilinear", "mean": [0.286], "std": [0.353],
          "crop_pct": 1.0, "crop_mode": "center"}  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    parser = training.Parser(doc=__doc__)
    training.add_picture_arguments(parser)
    training.add_settings(parser, training.RECIPES)
    training.add_machine_arguments(parser, out="runs/imagenet")
    models = [*list_models("coc_*"), "small_cnn"]
    return training.checked_pictures(parser, parser.parse_args(), models)


def load_data(args: argparse.Namespace, *, train: bool = True) -> training.Pictures:
    """ImageNet where it was asked for, otherwise the sample of Fashion-MNIST."""
    if args.data:
        first, second = training.image_folder(args.data, train=train, on_error=args.on_error)
        whole = (len(second.classes), len(second)) == (1000, 50_000)
        name = Path(args.data).expanduser().resolve().name
        return training.Pictures("ImageNet" if whole else name, first, second)
    if args.fashion_mnist is None:
        say("no ImageNet is given (--data FOLDER): using the bundled part of Fashion-MNIST")
    if args.img_size:
        raise ValueError("--img-size needs --data: Fashion-MNIST is 28 x 28")
    first = FashionMNIST(args.fashion_mnist, split="train") if train else ()
    second = FashionMNIST(args.fashion_mnist, split="test")
    return training.Pictures("Fashion-MNIST", first, second, SAMPLE)


def build(name: str, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
    """A network of the library, or small_cnn to compare with: three stages of two convolutions."""
    channels = {"num_classes": num_classes, "in_channels": in_channels}
    if name != "small_cnn":
        return create_model(name, drop_path=drop_path, **channels)
    layers: list[nn.Module] = []
    sizes = [in_channels, 36, 36, 72, 72, 144, 144]
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.MaxPool2d(2)] if i in (2, 4) else []
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [BatchNorm(outputs), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(144, num_classes)]
    model = nn.Sequential(*layers)
    model.config = {"name": name, **channels}
    return model


def make_network(
    args: argparse.Namespace, recipe: training.ImageRecipe, data: training.Pictures
) -> tuple[nn.Module, dict[str, Any]]:
    """A fresh network and what it takes; what does not fit shows here."""
    channels = data.config["input_size"][0] if data.config else 3
    model = build(recipe.model, len(data.test.classes), channels, recipe.drop_path)
    config = data.config or training.data_config(model, img_size=args.img_size)
    with torch.no_grad():
        model.eval()(torch.zeros(1, *config["input_size"]))
    return model.train(), config


def train(args: argparse.Namespace) -> None:
    tell = partial(log, args)
    # Data, and what fits them: what is wrong shows here, before training.
    with bad_input():
        data = load_data(args)
        items = len(data.train) // training.processes(args.devices)
        usual = training.RECIPES["ImageNet" if args.data else "Fashion-MNIST"]
        recipe, followed = training.chosen(args, usual, items)
        model, config = make_network(args, recipe, data)
        augment, plain = training.train_transform(recipe, config), training.eval_transform(config)
    if args.workers is None:
        args.workers = training.spare_cores() if args.data else 0
    settings = {"data": data.name, "images": [len(data.train), len(data.test)]}
    settings |= {"classes": list(data.test.classes), "network": model.config, "data_config": config}
    settings["fingerprint"] = training.fingerprint_images(data.train, data.test)
    free = ("data", "fashion_mnist", "val_every", "train", "validate", "predict", "weights")
    training.begin(args, dataclasses.asdict(recipe) | settings, free=free,
                   packages=("torchvision", "timm", "pillow"))  # fmt: skip
    if followed:
        tell(f"for {len(data.train):,} training images and {recipe.epochs} epochs: "
             + ", ".join(followed))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tell(f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images, "
         f"{len(data.test.classes):,} classes; {recipe.model}, {parameters / 1e6:.2f}M "
         f"parameters, images of {' x '.join(map(str, config['input_size']))}")  # fmt: skip

    results = []
    for seed, folder in training.seeds(args, results):
        # The network, and its batches.
        began = time.perf_counter()
        torch.manual_seed(seed)
        model, _ = make_network(args, recipe, data)
        batches = training.ImageDataModule(
            data.train, data.test, train_transform=augment, test_transform=plain,
            batch_size=recipe.batch_size, num_workers=args.workers, seed=seed,
        )  # fmt: skip
        # Training, and a test by the weights of the last epoch.
        classifier = training.ImageClassifier(
            model, data.test.classes, recipe=recipe, data_config=config, seed=seed, say=tell
        )
        metrics = training.fit_and_test(
            classifier, batches, folder=folder, resume=args.resume, say=tell,
            limit_batches=args.limit_batches, val_every=args.val_every or (1 if args.data else 10),
            title=f"{data.name} seed {seed} " if args.seeds > 1 else f"{data.name} ",
            **training.machine(args),
        )  # fmt: skip
        counted, seconds = int(classifier.test_confusion.sum()), time.perf_counter() - began
        result = {"data": data.name, "model": recipe.model, "seed": seed, "epochs": recipe.epochs}
        result |= {**metrics, "test_images": counted, "seconds": round(seconds, 1)}
        results.append(result)
        if recipe.model != "small_cnn":
            classifier.save(folder, result)
        left_out = "" if args.limit_batches else data.left_out(counted)
        tell(f"{data.name}, {recipe.model}, seed {seed}: {training.accuracies(metrics)} {left_out}"
             f"(last of {recipe.epochs} epochs), {result['seconds']:.0f} s")  # fmt: skip

    summary = training.summarise(results)
    if args.seeds > 1:
        tell(f"{data.name}, {recipe.model}, {args.seeds} seeds: {training.accuracies(summary)} "
             "(mean ± sample standard deviation)")  # fmt: skip
    whole = {"data": data.name, "summary": summary, "runs": results}
    training.finish(args, whole, files=("model.*",))


def validate(args: argparse.Namespace) -> None:
    """Top-1 and top-5 of a checkpoint on val/, or on the sample's test part."""
    trained = training.read_network(args.validate, build=build, name=args.model)
    with bad_input():
        data = load_data(args, train=False)
    training.check_classes(args.validate, trained, data.name, data.test.classes)
    trained = trained.at_size(args.img_size)
    metrics, counted = training.evaluate_pictures(
        trained, data.test, batch_size=args.batch_size or 128, num_workers=args.workers or 0,
        limit_batches=args.limit_batches, **training.machine(args),
    )  # fmt: skip
    left_out = "" if args.limit_batches else f" {data.left_out(counted)}".rstrip()
    say(f"{data.name}, {trained.model.config['name']}, {counted:,} images of "
        f"{' x '.join(map(str, trained.data_config['input_size'][1:]))}{left_out}: "
        f"{training.accuracies(metrics)}")  # fmt: skip


def predict(args: argparse.Namespace) -> None:
    """The likeliest classes of pictures."""
    trained = training.read_network(args.weights, build=build, name=args.model)
    for path in args.predict:
        with bad_input():
            best = training.likeliest(trained, path)
        say("\n".join([path, *(f"  {share:6.1%}  {name}" for share, name in best)]))


def main() -> int:
    args = parse_arguments()
    task = predict if args.predict else validate if args.validate else train
    return training.program(lambda: task(args), out=args.out, resume=args.resume)


if __name__ == "__main__":
    sys.exit(main())
