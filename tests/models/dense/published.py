"""Entries of published networks of segmentation and detection, made from their configurations."""

from __future__ import annotations

from tests.models.published import ENTRIES, entry

WIDTHS = (64, 128, 320, 512)
"""Channels of the stages of the networks small and medium."""


def backbone(name="coc_small"):
    """Shapes of a published backbone's entries: the classifier's, with a norm a stage."""
    shapes = {k: v for k, v in ENTRIES[name].items() if not k.startswith(("norm.", "head."))}
    for stage, width in enumerate(WIDTHS):
        shapes |= {f"norm{2 * stage}.weight": [width], f"norm{2 * stage}.bias": [width]}
    return {f"backbone.{key}": shape for key, shape in shapes.items()}


def neck(channels=256):
    shapes = {}
    for level, width in enumerate(WIDTHS):
        shapes |= layer(f"neck.lateral_convs.{level}.conv", channels, width, 1, 1)
        shapes |= layer(f"neck.fpn_convs.{level}.conv", channels, channels, 3, 3)
    return shapes


def layer(name, out, *shape):
    return {f"{name}.weight": [out, *shape], f"{name}.bias": [out]}


def semantic_fpn(classes=150, channels=128):
    """Semantic FPN as mmsegmentation lays it out: fpn_coc_small_2_ade20k_80k.py."""
    shapes = backbone() | neck()
    for level, convolutions in enumerate([1, 1, 2, 3]):
        for number in range(convolutions):
            # An upsampling, which has no entries, stands between two convolutions.
            name = f"decode_head.scale_heads.{level}.{2 * number}"
            shapes[f"{name}.conv.weight"] = [channels, channels if number else 256, 3, 3]
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.bn.{part}"] = [channels]
            shapes[f"{name}.bn.num_batches_tracked"] = []
    shapes |= layer("decode_head.conv_seg", classes, channels, 1, 1)
    return {key: entry(key, shape) for key, shape in shapes.items()}


def mask_rcnn(classes=80):
    """Mask R-CNN as mmdetection lays it out: mask_rcnn_coc_small_2_fpn_1x_coco.py."""
    shapes = backbone() | neck()
    shapes |= layer("rpn_head.rpn_conv", 256, 256, 3, 3)
    shapes |= layer("rpn_head.rpn_cls", 3, 256, 1, 1) | layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    box, mask = "roi_head.bbox_head", "roi_head.mask_head"
    shapes |= layer(f"{box}.shared_fcs.0", 1024, 256 * 7 * 7) | layer(
        f"{box}.shared_fcs.1", 1024, 1024
    )
    shapes |= layer(f"{box}.fc_cls", classes + 1, 1024) | layer(f"{box}.fc_reg", 4 * classes, 1024)
    for number in range(4):
        shapes |= layer(f"{mask}.convs.{number}.conv", 256, 256, 3, 3)
    shapes |= {f"{mask}.upsample.weight": [256, 256, 2, 2], f"{mask}.upsample.bias": [256]}
    shapes |= layer(f"{mask}.conv_logits", classes, 256, 1, 1)
    return {key: entry(key, shape) for key, shape in shapes.items()}
