"""The paper's network of semantic segmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, PolynomialLR

from pointcluster._optional import installed_by
from pointcluster.geometry.check import check_positive
from pointcluster.models.coc import CoC
from pointcluster.models.dense.published import published_semantic_fpn
from pointcluster.models.dense.pyramid import PyramidBackbone, pyramid_of


class SemanticFPN(nn.Module):
    r"""A class for every pixel: a feature pyramid whose levels are brought to the finest and added.

    A level comes to the finest one by convolutions of 3 x 3, normalised over the batch and cut off
    at 0, each followed by twice as many points along both axes; the scores are stretched to the
    picture.

    From "Panoptic Feature Pyramid Networks", Kirillov et al., CVPR 2019,
    <https://arxiv.org/abs/1901.02446>, with the published settings of "Image as Set of Points".
    For pictures of several sizes, :class:`Unpadded`.

    Args:
        backbone: A network of features only.
        num_classes: Number of classes.
        width: Channels of the pyramid.
        head_width: Channels of the levels' convolutions.
        dropout: Share of channels left out before the classifier, in training.

    Shapes:
        - **input:** $(B, 3, H, W)$
        - **output:** $(B, \text{classes}, H, W)$

    Raises:
        ValueError: A number is not positive, or the backbone answers with classes or with stages
            whose points do not lie 1, 2, 4, ... times as far apart as those of the first.
    """

    def __init__(
        self,
        backbone: CoC,
        num_classes: int,
        *,
        width: int = 256,
        head_width: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in [
            ("num_classes", num_classes),
            ("width", width),
            ("head_width", head_width),
        ]:
            check_positive(name, value)
        self.num_classes = num_classes
        self.config: dict[str, Any] = {}  # what create_model() builds it from
        self.backbone = PyramidBackbone(backbone, width, None)
        strides = [backbone.feature_info[s]["reduction"] for s in backbone.out_indices]
        doublings = [math.log2(stride / strides[0]) for stride in strides]
        if any(steps < 0 or steps % 1 for steps in doublings):
            raise ValueError(f"strides must be 1, 2, 4, ... times the first, found {strides}")
        self.heads: Any = nn.ModuleList(_up(width, head_width, int(steps)) for steps in doublings)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(head_width, num_classes, 1)
        for name, parameter in self.classifier.named_parameters():
            nn.init.normal_(parameter, std=0.01 if name == "weight" else 0.0)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of the classes for every pixel."""
        levels = self.backbone(pictures).values()
        first, *others = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        x: Tensor = first  # [B, C, H / 4, W / 4]
        for level in others:
            x = x + _stretch(level, x)
        return _stretch(self.classifier(self.dropout(x)), pictures)

    def load_published(
        self, state_dict: Mapping[str, Any], *, ema: bool = False, backbone: bool = False
    ) -> None:
        """Load a published checkpoint of mmsegmentation's form, strictly.

        Args:
            state_dict: Its entries (`backbone.`, `neck.`, `decode_head.`), as they are or under
                `state_dict`.
            ema: Take the averaged weights under `state_dict_ema`.
            backbone: Take a checkpoint of ImageNet for the backbone alone, as
                :meth:`CoC.load_published` does.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        if backbone:
            self.backbone.body.load_published(state_dict, ema=ema, backbone=True)
        else:
            self.load_state_dict(published_semantic_fpn(state_dict, self.state_dict(), ema=ema))


def semantic_fpn(
    backbone: str | CoC,
    num_classes: int = 150,
    *,
    width: int = 256,
    head_width: int = 128,
    dropout: float = 0.1,
    **options: Any,
) -> SemanticFPN:
    """The paper's network of semantic segmentation, on any of the pyramids.

    Args:
        backbone: A network of pictures by its name, such as `"coc_medium_feat7"`, or one made with
            `features_only=True`.
        num_classes: Number of classes; ADE20K has 150.
        width: Channels of the pyramid.
        head_width: Channels of the levels' convolutions.
        dropout: Share of channels left out before the classifier, in training.
        options: Further arguments of the backbone, by its name.

    Raises:
        ValueError: There is no such backbone, or it answers with classes.
    """
    body = pyramid_of(backbone, **options)
    return SemanticFPN(body, num_classes, width=width, head_width=head_width, dropout=dropout)


def semantic_fpn_schedule(
    model: nn.Module, steps: int = 80_000, *, lr: float = 1e-4, weight_decay: float = 1e-4
) -> tuple[Optimizer, LRScheduler]:
    """The published optimiser and learning rate: AdamW, falling to 0 with power 0.9, step by step.

    Published for 4 GPUs (8, say the commands beside the configurations) with 4 pictures of
    512 x 512, cut out of pictures resized to 0.5 to 2 times 512, flipped, and changed in
    brightness, contrast, saturation and hue.

    Args:
        model: The network.
        steps: How often the optimiser steps.
        lr: Learning rate at the start.
        weight_decay: Decay of all weights.
    """
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    return optimizer, PolynomialLR(optimizer, total_iters=steps, power=0.9)


def _up(width: int, channels: int, steps: int) -> nn.Sequential:
    """Convolutions that bring a level to the finest one, `steps` doublings away."""
    with installed_by("image"):
        from torchvision.ops import Conv2dNormActivation
    parts: list[nn.Module] = []
    for step in range(max(1, steps)):
        parts.append(Conv2dNormActivation(channels if step else width, channels))
        if steps:
            parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*parts)


def _stretch(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
