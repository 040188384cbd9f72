"""The networks of pictures as timm builds, trains and asks for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

from torch import nn

from pointcluster.models.base import chosen_stages
from pointcluster.models.coc import SIZES, CoC

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import (
        FeatureInfo,
        build_model_with_cfg,
        generate_default_cfgs,
        register_model,
    )
except ImportError as error:
    raise ImportError("pointcluster.timm needs timm: pip install 'pointcluster[image]'") from error

__all__ = ["TimmCoC"]  # register_model() adds the networks' names


class TimmCoC(CoC):
    """A :class:`~pointcluster.models.CoC` with timm's arguments and methods; the weights are alike.

    Args:
        name: One of this library's networks of pictures.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_chans: Channels of the pictures.
        global_pool: How a picture's points become one: `"avg"` is the only way.
        drop_rate: Share of the MLPs' hidden channels left out in training.
        drop_path_rate: Probability of leaving out the last block's branches for a picture.
        layer_scale: Start of the scales of the blocks' branches; `None` leaves them out; the
            network's own, if not said.
        output_stride: Pixels from one point of the last stage to the next, where fewer are wanted.
        features_only: Answer with the stages' features, each with a norm of its own.
        out_indices: Which stages to answer with, in this order, or how many of the last; all, if
            not said.

    Shapes:
        - **input:** $(B, C_{in}, H, W)$, or points
        - **output:** $(B, \\text{classes})$; with `features_only` a list of $(B, C_s, H_s, W_s)$

    Raises:
        IndexError: A stage to answer with does not exist.
        ValueError: `global_pool` is another, or `out_indices` repeat a stage or are none.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | EllipsisType | None = ...,
        output_stride: int | None = None,
        features_only: bool = False,
        out_indices: Sequence[int] | int | None = None,
    ) -> None:
        if global_pool != "avg":
            raise ValueError(f"pictures are averaged: global_pool = 'avg', found {global_pool!r}")
        options: dict[str, Any] = {
            "dropout": drop_rate,
            "drop_path": drop_path_rate,
            "features_only": features_only,
        }
        if layer_scale is not ...:
            options["layer_scale"] = layer_scale
        if output_stride is not None:
            options["output_stride"] = output_stride
        if out_indices is not None:
            options["out_indices"] = chosen_stages(out_indices, len(SIZES[name].depths))
        super().__init__(num_classes, in_chans, **(SIZES[name]._asdict() | options))
        self.config = {"name": name, "num_classes": num_classes, "in_channels": in_chans, **options}
        self.in_chans, self.drop_rate = in_chans, drop_rate
        if features_only:
            self.feature_info: Any = FeatureInfo(self.feature_info, self.out_indices)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; 0 leaves it out.

        Raises:
            ValueError: `global_pool` is another than `"avg"`.
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"pictures are averaged: global_pool = 'avg', found {global_pool!r}")
        super().reset_classifier(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """How parameters are grouped into layers, from the input on, for learning rates."""
        blocks: list[tuple[str, tuple[int] | None]]
        if coarse:
            blocks = [(r"^reducers\.(\d+)", None), (r"^stages\.(\d+)", None)]
        else:
            blocks = [
                (r"^reducers\.(\d+)", (0,)),  # with the first block after it
                (r"^stages\.(\d+)\.(\d+)", None),
                (r"^norm", (99999,)),
            ]
        return {"stem": r"^reducers\.0", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Parameters that are not to decay; timm itself leaves out all of one axis."""
        return set()


def _entry(name: str) -> Callable[..., nn.Module]:
    """The function that timm calls for a network."""

    def build(**options: Any) -> TimmCoC:
        return TimmCoC(name, **options)

    def entry(
        pretrained: bool = False,
        features_only: bool = False,
        out_indices: Sequence[int] | int | None = None,
        **options: Any,
    ) -> nn.Module:
        overlay = options.get("pretrained_cfg_overlay") or {}
        if pretrained and not overlay.get("file"):
            raise RuntimeError(
                f"no weights of {name} are hosted: build it with pretrained=False, then load a "
                "published checkpoint with model.load_published(), or a file that `python -m "
                "pointcluster.models.convert` made of one with checkpoint_path"
            )
        if features_only:
            options["num_classes"] = 0
            # Not timm's wrapper: the network has its own pyramid, with a norm for every stage.
            return build_model_with_cfg(
                lambda **rest: build(features_only=True, out_indices=out_indices, **rest),
                name, pretrained, **options,
            )  # fmt: skip
        return build_model_with_cfg(build, name, pretrained, **options)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"Build {name}; the arguments are :class:`TimmCoC`'s."
    return entry


default_cfgs = generate_default_cfgs(
    {
        name: {
            "num_classes": 1000,
            "input_size": (3, 28, 28) if size.patch == 2 else (3, 224, 224),
            "pool_size": None,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "reducers.0.linear",
            "classifier": "head",
            "paper_ids": "arXiv:2303.01494",
            "license": "apache-2.0",
        }
        for name, size in SIZES.items()
    }
)
"""What timm says of each network: the published pictures' size, crop and normalisation."""

for _name in SIZES:
    setattr(sys.modules[__name__], _name, register_model(_entry(_name)))
