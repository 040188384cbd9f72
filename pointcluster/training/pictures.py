"""Networks of pictures: what they take, a plain loop of training, trained ones from files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pointcluster._optional import installed_by
from pointcluster.datasets import read_image
from pointcluster.files import replacing
from pointcluster.models import CoC, load_model
from pointcluster.models.factory import network_of_run
from pointcluster.models.files import is_run, read_safely, short
from pointcluster.models.published import unwrapped
from pointcluster.training.classifier import ImageClassifier
from pointcluster.training.data import ImageDataModule
from pointcluster.training.fit import evaluate
from pointcluster.training.program import bad_input
from pointcluster.training.recipe import ImageRecipe
from pointcluster.training.run import RunError


def data_config(model: nn.Module, *, img_size: int | None = None) -> dict[str, Any]:
    """What a network takes, in timm's words and as plain values.

    Args:
        model: One of this library's; any other takes colour pictures of 224 x 224, unless its
            ``default_cfg``, in timm's form, says otherwise.
        img_size: Height and width, instead of the network's own.

    Returns:
        ``input_size`` (channels, height, width), ``interpolation``, ``mean``, ``std``, ``crop_pct``
        (the share of a picture's side that evaluation keeps) and ``crop_mode``.
    """
    with installed_by("image"):
        from timm.data import resolve_data_config

        from pointcluster.timm.coc import default_cfgs
    name = getattr(model, "config", {}).get("name")
    own = default_cfgs[name].default.to_dict() if name in default_cfgs else {}
    default = own | dict(getattr(model, "default_cfg", {}))
    size = default.get("input_size", (3, 224, 224))
    size = (size[0], img_size, img_size) if img_size else size
    config = resolve_data_config({"input_size": size}, pretrained_cfg=default)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()}


def train_transform(recipe: ImageRecipe, config: dict[str, Any]) -> Callable[[Any], Tensor]:
    """Augmentation: timm's for ImageNet, or a flip and a small shift for small pictures.

    Args:
        recipe: Gives ``crop`` and ``auto_augment``.
        config: From :func:`data_config`.

    Raises:
        ImportError: timm or torchvision is not installed.
        ValueError: timm knows no such policy.
    """
    policy = recipe.auto_augment if recipe.auto_augment != "none" else None
    with installed_by("image"):
        from timm.data import create_transform
        from timm.data.auto_augment import posterize
        from torchvision import transforms
    if recipe.crop == "resized":
        try:
            transform = create_transform(
                tuple(config["input_size"]),
                is_training=True,
                auto_augment=policy,
                interpolation="random",
                mean=tuple(config["mean"]),
                std=tuple(config["std"]),
            )
        except (AssertionError, KeyError) as error:
            raise ValueError(f"timm has no policy --auto-augment {policy!r}: {error}") from error
        for step in transform.transforms:
            policies = getattr(step, "policy", [])  # AutoAugment's; the others have ops
            for operation in chain(getattr(step, "ops", []), *policies):
                if operation.aug_fn is posterize:
                    operation.aug_fn = _posterize
        return transform
    if policy:
        raise ValueError("--auto-augment needs --crop resized")
    height, width = config["input_size"][1:]
    steps = [
        transforms.Resize((height, width)),
        transforms.RandomCrop((height, width), padding=max(1, min(height, width) // 14)),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(config["mean"], config["std"]),
    ]
    return transforms.Compose(steps)


def eval_transform(config: dict[str, Any]) -> Callable[[Any], Tensor]:
    """timm's evaluation: scale the picture, keep its middle, normalise.

    Args:
        config: From :func:`data_config`.

    Raises:
        ImportError: timm is not installed.
    """
    with installed_by("image"):
        from timm.data import create_transform
    options = {key: config[key] for key in ("interpolation", "crop_pct", "crop_mode")}
    return create_transform(
        tuple(config["input_size"]),
        is_training=False,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        **options,
    )


def _posterize(image: Any, bits: int, **unused: Any) -> Any:
    """timm's, also where its random strength keeps no bits: black, which Pillow 13 refuses."""
    from timm.data.auto_augment import posterize

    return posterize(image, bits) if bits > 0 else image.point(lambda value: 0)


def train_epochs(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any], Tensor],
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    epochs: int,
    clip: float = 10.0,
    precision: str = "32",
    say: Callable[[str], None] | None = None,
) -> float:
    """Train in a plain loop, for programs that need no more than that.

    Args:
        model: The network; it is left in training mode.
        batches: What an epoch goes through, such as a `DataLoader`.
        loss: The loss of a batch.
        optimizer: Steps after each batch.
        schedule: Of its learning rate; steps with it.
        epochs: How often to go through the batches.
        clip: Highest norm of all gradients together.
        precision: `"bf16"` works out products in bfloat16 (autocast), `"32"` all in float32.
        say: Told a line after each epoch.

    Returns:
        The mean loss of the last epoch.

    Raises:
        ValueError: There is no such precision.
    """
    if precision not in ("32", "bf16"):
        raise ValueError(f"precision must be '32' or 'bf16', found {precision!r}")
    start, mean = time.perf_counter(), float("nan")
    device, half = next(model.parameters()).device.type, precision == "bf16"
    model.train()
    for epoch in range(epochs):
        losses = []
        for batch in batches:
            with torch.autocast(device, torch.bfloat16, enabled=half):
                value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
            losses.append(value.detach())
        mean = float(torch.stack(losses).mean())
        if say:
            say(f"epoch {epoch + 1}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s")
    return mean


def write_grid(
    path: str | os.PathLike[str], pictures: Sequence[Tensor], columns: int, *, height: int = 256
) -> None:
    """Write pictures of several sizes as one, row by row.

    Args:
        path: The file, `.png`.
        pictures: Colours from 0 to 255, uint8. $(3, H, W)$
        columns: Pictures in a row.
        height: Pixels that each is resized to.
    """
    with installed_by("image"):
        from torchvision.transforms.v2 import functional as F
        from torchvision.utils import make_grid
    pictures = [F.resize(p, [height, height * p.size(2) // p.size(1)]) for p in pictures]
    width = max(p.size(2) for p in pictures)
    cells = [F.pad(p, [0, 0, width - p.size(2), 0]) for p in pictures]
    write_picture(path, make_grid(cells, columns))


def write_picture(path: str | os.PathLike[str], picture: Tensor) -> None:
    """Write a picture.

    Args:
        path: The file; its ending says the format.
        picture: Colours from 0 to 255, uint8. $(3, H, W)$
    """
    with installed_by("image"):
        from PIL import Image
    with replacing(path) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary)


class TrainedNetwork(NamedTuple):
    """A network in evaluation mode, and what belongs to it."""

    model: nn.Module
    classes: list[str] | None
    """The names that it was trained with; `None` where its file names none."""
    data_config: dict[str, Any]
    """What it takes, as :func:`data_config` says it."""

    def at_size(self, side: int | None) -> TrainedNetwork:
        """The same for squares of so many pixels a side, if any are said."""
        size = [self.data_config["input_size"][0], side, side]
        return self._replace(data_config=self.data_config | {"input_size": size}) if side else self


@bad_input()
def read_network(
    path: str | os.PathLike[str], *, build: Callable[..., nn.Module], name: str | None = None
) -> TrainedNetwork:
    """Read a network that this library saved, a run's checkpoint, or a published checkpoint.

    Of a run with an average of the weights, the average is read.

    Args:
        path: ``model.safetensors`` (or ``.json``), ``checkpoints/last.ckpt``, or a published file.
        build: ``build(**config)`` makes a network; :func:`pointcluster.models.create_model` does.
        name: The network that is expected; a published file needs it, as it does not say.

    Raises:
        FileNotFoundError: There is no such file.
        RunError: The file is damaged, holds code, is of another network or of one of points, or
            what it notes of classes and pictures does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.suffix in (".safetensors", ".json"):
        saved, noted = load_model(path, name=name)
        if not isinstance(saved, CoC):
            raise ValueError(
                f"{path} holds {saved.config['name']!r}, a network of points, expected one of "
                "pictures"
            )
        if not isinstance(noted, Mapping):
            raise ValueError(f"{path}: metadata is {short(noted)}, expected a dictionary")
        taken = noted.get("data_config") or data_config(saved)
        return _checked(path, TrainedNetwork(saved, noted.get("classes"), taken))

    def of_pictures(noted: Mapping[str, Any]) -> None:
        if missing := [key for key in ("classes", "data_config") if key not in noted]:
            raise ValueError(
                f"{path} holds {noted['config']['name']!r} without {' and '.join(missing)}: "
                "expected a checkpoint of a run on pictures"
            )

    content = read_safely(path)
    if is_run(content):
        model, noted = network_of_run(path, content, build=build, name=name, needed=of_pictures)
        return _checked(path, TrainedNetwork(model, noted["classes"], noted["data_config"]))
    if name is None:
        raise ValueError(f"{path} does not say which network it is of: name it with --model")
    try:
        head = unwrapped(content).get("head.weight")
        published: Any = build(name=name, num_classes=1000 if head is None else len(head))
        published.load_published(content)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no published checkpoint of {name!r}: {error}") from error
    return TrainedNetwork(published.eval(), None, data_config(published))


def _checked(path: Path, read: TrainedNetwork) -> TrainedNetwork:
    """What is noted beside the weights must fit the network."""
    config: Any = read.model.config
    number, classes, taken = config.get("num_classes"), read.classes, read.data_config
    if config.get("features_only") or not number:
        raise ValueError(f"{path} holds a network without a classifier, expected one with classes")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (named and len(classes) == number):
        count = f"{len(classes):,} names" if named else short(classes)
        raise ValueError(
            f"{path} names other classes than the network knows: {count} in the file, expected "
            f"{number:,} names"
        )
    needed = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}
    if missing := sorted(needed - taken.keys() if isinstance(taken, Mapping) else needed):
        raise ValueError(f"{path}: data_config lacks {', '.join(missing)}: found {short(taken)}")
    size, channels = taken["input_size"], config.get("in_channels", 3)
    if not isinstance(size, Sequence) or len(size) != 3 or size[0] != channels:
        raise ValueError(
            f"{path}: the input_size of data_config is {short(size)}, expected [{channels}, "
            "height, width]"
        )
    return read


def likeliest(
    trained: TrainedNetwork, path: str | os.PathLike[str], count: int = 5
) -> list[tuple[float, str]]:
    """The likeliest classes of a picture, in words, after the share that each is given.

    Args:
        trained: The network.
        path: The picture.
        count: Most classes to name.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no picture, or a damaged one.
    """
    image = read_image(path).convert("L" if trained.data_config["input_size"][0] == 1 else "RGB")
    with torch.inference_mode():
        shares = trained.model(eval_transform(trained.data_config)(image)[None])[0].float()
    names = class_words(trained.classes, len(shares))
    best = shares.softmax(0).topk(min(count, len(names)))
    return [(float(share), names[i]) for share, i in zip(*map(Tensor.tolist, best), strict=True)]


def evaluate_pictures(
    trained: TrainedNetwork,
    test: Any,
    *,
    batch_size: int = 128,
    num_workers: int = 0,
    **options: Any,
) -> tuple[dict[str, float], int]:
    """Test a network on pictures.

    Args:
        trained: The network.
        test: The pictures, as :class:`ImageDataModule` takes them, and their ``classes``.
        batch_size: Pictures a batch and process.
        num_workers: Processes that read.
        options: Of :func:`evaluate`.

    Returns:
        What :func:`evaluate` gives, and how many pictures there were.
    """
    transform = eval_transform(trained.data_config)
    loaders = ImageDataModule(
        (),
        test,
        train_transform=transform,
        test_transform=transform,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    recipe = ImageRecipe(batch_size=batch_size, mixup=0.0, cutmix=0.0)
    classifier = ImageClassifier(
        trained.model, test.classes, recipe=recipe, data_config=trained.data_config
    )
    metrics = evaluate(classifier, loaders, **options)
    assert classifier.test_confusion is not None
    return metrics, int(classifier.test_confusion.sum())


def check_classes(
    path: str | os.PathLike[str], trained: TrainedNetwork, data: str, classes: Sequence[str]
) -> None:
    """Check that the network of a file knows the classes of a data set, in its order.

    Raises:
        RunError: It knows others.
    """
    if (number := trained.model.config["num_classes"]) != len(classes):  # type: ignore[index]
        raise RunError(f"{path} knows {number:,} classes, {data} has {len(classes):,}")
    for known, name in zip(trained.classes or (), classes, strict=False):
        if known != name:
            raise RunError(
                f"{path} was trained on other classes: it knows {known!r} where {data} has {name!r}"
            )


def class_words(classes: Sequence[str] | None, number: int) -> list[str]:
    """Names of classes, in words where they are ImageNet's numbers.

    Args:
        classes: Their names; `None` for those of a published network.
        number: How many there are.

    Raises:
        ImportError: timm is not installed.
    """
    with installed_by("image"):
        from timm.data import ImageNetInfo
    words: Any = ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)
    if classes is None and number == 1000:
        classes = ImageNetInfo().label_names()
    return [words.get(name, name) for name in classes or map(str, range(number))]
