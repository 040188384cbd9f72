"""From a PIL picture to a tensor, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from torch import Tensor, nn

from pointcluster._optional import installed_by
from pointcluster.training.image_recipe import ImageRecipe


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
