"""Published checkpoints of segmentation and detection, in this library's terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pointcluster.models.published import fitted, published_entries, unwrapped

_NECK = {"lateral_convs": "inner_blocks", "fpn_convs": "layer_blocks"}


def published_semantic_fpn(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], *, ema: bool = False
) -> dict[str, Tensor]:
    """Turn the entries of mmsegmentation's `FPN` and `FPNHead` into those of `SemanticFPN`.

    Args:
        checkpoint: The entries, plain or wrapped.
        own: The network's own entries, which say what there must be.
        ema: Take the averaged weights.

    Raises:
        ValueError: An entry is left over, missing or of another shape.
    """

    def renamed(key: str) -> str | None:
        if match := re.fullmatch(r"decode_head\.conv_seg\.(weight|bias)", key):
            return f"classifier.{match[1]}"
        part = r"decode_head\.scale_heads\.(\d+)\.(\d+)\.(conv|bn)\.(\w+)"
        if match := re.fullmatch(part, key):
            return f"heads.{match[1]}.{match[2]}.{('conv', 'bn').index(match[3])}.{match[4]}"
        return None

    return _renamed(checkpoint, own, renamed, ema)


def published_mask_rcnn(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], *, ema: bool = False
) -> dict[str, Tensor]:
    """Turn the entries of mmdetection's Mask R-CNN into those of torchvision's.

    There the background is the last class and has no box and no mask, here it is the first.

    Args:
        checkpoint: The entries, plain or wrapped.
        own: The network's own entries, which say what there must be.
        ema: Take the averaged weights.

    Raises:
        ValueError: An entry is left over, missing or of another shape.
    """
    rpn = {"rpn_conv": "conv.0.0", "rpn_cls": "cls_logits", "rpn_reg": "bbox_pred"}
    box = {
        "shared_fcs.0": "box_head.fc6",
        "shared_fcs.1": "box_head.fc7",
        "fc_cls": "box_predictor.cls_score",
        "fc_reg": "box_predictor.bbox_pred",
    }
    mask = {"upsample": "conv5_mask", "conv_logits": "mask_fcn_logits"}

    def renamed(key: str) -> str | None:
        if match := re.fullmatch(r"rpn_head\.(\w+)\.(weight|bias)", key):
            return f"rpn.head.{rpn[match[1]]}.{match[2]}" if match[1] in rpn else None
        if match := re.fullmatch(r"roi_head\.bbox_head\.(.+)\.(weight|bias)", key):
            return f"roi_heads.{box[match[1]]}.{match[2]}" if match[1] in box else None
        if match := re.fullmatch(r"roi_head\.mask_head\.convs\.(\d+)\.conv\.(\w+)", key):
            return f"roi_heads.mask_head.{match[1]}.0.{match[2]}"
        if match := re.fullmatch(r"roi_head\.mask_head\.(\w+)\.(weight|bias)", key):
            name = mask.get(match[1])
            return f"roi_heads.mask_predictor.{name}.{match[2]}" if name else None
        return None

    entries = unwrapped(checkpoint, ema=ema)
    for kind in ("weight", "bias"):
        for name, rows in [
            ("bbox_head.fc_cls", 0),
            ("bbox_head.fc_reg", 4),
            ("mask_head.conv_logits", 1),
        ]:
            key = f"roi_head.{name}.{kind}"
            if key in entries and len(value := entries[key]):
                fresh = torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
                entries[key] = fresh if rows else value.roll(1, 0)
    return _renamed(entries, own, renamed, False)


def _renamed(
    checkpoint: Mapping[str, Any],
    own: Mapping[str, Tensor],
    renamed: Callable[[str], str | None],
    ema: bool,
) -> dict[str, Tensor]:
    """The backbone's entries as the network of pictures has them, the neck's, and what is said."""
    entries: dict[str, Tensor] = {}
    body: dict[str, Tensor] = {}
    unknown = []
    for key, value in unwrapped(checkpoint, ema=ema).items():
        if key.startswith("backbone."):
            body[key.removeprefix("backbone.")] = value
        elif match := re.fullmatch(r"neck\.(\w+)\.(\d+)\.conv\.(weight|bias)", key):
            block = _NECK.get(match[1], match[1])
            entries[f"backbone.fpn.{block}.{match[2]}.0.{match[3]}"] = value
        elif name := renamed(key):
            entries[name] = value
        else:
            unknown.append(key)
    prefix = "backbone.body."
    wanted = {k.removeprefix(prefix): v for k, v in own.items() if k.startswith(prefix)}
    if not body:
        raise ValueError("the checkpoint has no entries 'backbone.': is it one of ImageNet?")
    found = published_entries(body, wanted)
    entries |= {prefix + key: value for key, value in found.items()}
    return fitted(entries, own, unknown)
