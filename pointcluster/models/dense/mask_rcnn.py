"""The paper's network of detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pointcluster._optional import installed_by
from pointcluster.models.coc import CoC
from pointcluster.models.dense.aligned_pool import AlignedPool
from pointcluster.models.dense.published import published_mask_rcnn
from pointcluster.models.dense.pyramid import PyramidBackbone, pyramid_of
from pointcluster.models.dense.unpadded_detector import UnpaddedDetector


class MaskRCNN(UnpaddedDetector):
    """torchvision's Mask R-CNN on a pyramid of context clusters, with the published settings.

    It finds in each picture what it finds in it alone (:class:`UnpaddedDetector`). Apart from
    torchvision's defaults: anchors are not rounded to whole pixels, regions are pooled by their
    pixels' centres, with as many samples as they have pixels, and 1,000 regions a picture are
    proposed in training, too. The losses are torchvision's: smooth within 1/9 for boxes, where the
    published ones are absolute differences.

    From "Mask R-CNN", He et al., ICCV 2017, <https://arxiv.org/abs/1703.06870>.

    Args:
        backbone: A network of features only, with strides 4, 8, 16 and 32.
        num_classes: Number of classes, the background (0) included, as torchvision counts.
        options: Further arguments of torchvision's `MaskRCNN`.

    Raises:
        ValueError: The backbone answers with classes, or its strides do not double from stage to
            stage, as with `output_stride`.
    """

    def __init__(self, backbone: CoC, num_classes: int, **options: Any) -> None:
        with installed_by("image"):
            from torchvision.models import detection
        body = PyramidBackbone(backbone)
        names = [str(level) for level in range(len(backbone.out_indices))]
        strides = [backbone.feature_info[s]["reduction"] for s in backbone.out_indices]
        sizes = tuple((8 * stride,) for stride in [*strides, 2 * strides[-1]])
        ratios = (0.5, 1.0, 2.0)
        anchors = detection.anchor_utils.AnchorGenerator(sizes, (ratios,) * len(sizes))
        anchors.cell_anchors = [_cells(side, ratios) for (side,) in sizes]
        defaults = {"rpn_anchor_generator": anchors, "rpn_post_nms_top_n_train": 1000}
        detector = detection.MaskRCNN(body, num_classes, **(defaults | options))
        for name, side in [("box_roi_pool", 7), ("mask_roi_pool", 14)]:
            if name not in options:
                setattr(detector.roi_heads, name, AlignedPool(names, strides, side))
        super().__init__(detector)
        self.num_classes = num_classes
        self.config: dict[str, Any] = {}  # what create_model() builds it from

    def load_published(
        self, state_dict: Mapping[str, Any], *, ema: bool = False, backbone: bool = False
    ) -> None:
        """Load a published checkpoint of mmdetection's form, strictly.

        Its classes become 1, 2, ... in their order. No mask is asked of the background, whose
        weights there are 0.

        Args:
            state_dict: Its entries (`backbone.`, `neck.`, `rpn_head.`, `roi_head.`), as they are or
                under `state_dict`.
            ema: Take the averaged weights under `state_dict_ema`.
            backbone: Take a checkpoint of ImageNet for the backbone alone, as
                :meth:`CoC.load_published` does.

        Raises:
            ValueError: An entry is left over, missing or of another shape: nothing is loaded then.
        """
        detector: Any = self.detector
        if backbone:
            detector.backbone.body.load_published(state_dict, ema=ema, backbone=True)
        else:
            own = detector.state_dict()
            detector.load_state_dict(published_mask_rcnn(state_dict, own, ema=ema))


def mask_rcnn(
    backbone: str | CoC,
    num_classes: int = 81,
    *,
    detector: Mapping[str, Any] | None = None,
    **options: Any,
) -> MaskRCNN:
    """The paper's network of detection, on any of the pyramids.

    Args:
        backbone: A network of pictures by its name, such as `"coc_medium_feat7"`, or one made with
            `features_only=True`.
        num_classes: Number of classes, the background (0) included; COCO has 81.
        detector: Further arguments of torchvision's `MaskRCNN`, such as `min_size`.
        options: Further arguments of the backbone, by its name.

    Raises:
        ValueError: There is no such backbone, it answers with classes, or its strides do not double
            from stage to stage.
    """
    return MaskRCNN(pyramid_of(backbone, **options), num_classes, **(detector or {}))


def mask_rcnn_schedule(
    model: nn.Module,
    steps_per_epoch: int,
    epochs: int = 12,
    *,
    lr: float = 2e-4,
    weight_decay: float = 1e-4,
    warmup: int = 500,
) -> tuple[Optimizer, LRScheduler]:
    """The published optimiser and learning rate: AdamW, a tenth after 8 and again 11 of 12 epochs.

    Published for 8 GPUs with 4 pictures (2, for `coc_medium_feat7`), resized to 800 along their
    shorter and at most 1,333 along their longer side, and flipped.

    Args:
        model: The network.
        steps_per_epoch: How often the optimiser steps in an epoch; step the schedule with it.
        epochs: How many epochs; the rate falls after 8 and 11 twelfths of them.
        lr: Learning rate.
        weight_decay: Decay of all weights.
        warmup: Steps in which the rate rises from a thousandth.
    """
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    falls = [part * epochs * steps_per_epoch / 12 for part in (8, 11)]

    def factor(step: int) -> float:
        rising = min(1.0, 0.001 + 0.999 * step / warmup) if warmup else 1.0
        return float(rising * 0.1 ** sum(step >= fall for fall in falls))

    return optimizer, LambdaLR(optimizer, factor)


def _cells(side: int, ratios: Sequence[float]) -> Tensor:
    """Anchors around the origin of one area, height over width as said."""
    across = torch.tensor([side / ratio**0.5 for ratio in ratios]) / 2
    down = torch.tensor([side * ratio**0.5 for ratio in ratios]) / 2
    return torch.stack([-across, -down, across, down], dim=1)
