from __future__ import annotations

import pytest
import torch

from pointcluster.models.dense import MaskRCNN, PyramidBackbone, mask_rcnn, mask_rcnn_schedule
from tests.models.dense.networks import pictures, pyramid, shaken

detection = pytest.importorskip("torchvision.models.detection")


def test_the_published_sizes():
    model = mask_rcnn("coc_small")
    detector = model.detector
    assert isinstance(detector, detection.MaskRCNN) and model.strides == [4, 8, 16, 32, 64]
    assert detector.roi_heads.box_predictor.cls_score.out_features == 81
    assert detector.transform.min_size == (800,) and detector.transform.max_size == 1333
    assert detector.rpn._post_nms_top_n == {"training": 1000, "testing": 1000}
    assert detector.rpn._pre_nms_top_n == {"training": 2000, "testing": 1000}
    # mmdetection's anchors: scale 8, ratios 0.5, 1 and 2 of height over width, not rounded.
    first = detector.rpn.anchor_generator.cell_anchors[0]
    expected = torch.tensor([[-22.6274, -11.3137, 22.6274, 11.3137], [-16, -16, 16, 16]])
    torch.testing.assert_close(first[:2], expected, atol=1e-3, rtol=0)
    count = sum(p.numel() for p in model.parameters())
    assert 32e6 < count < 35e6  # the paper says 33.5M


def test_found_alone_and_beside_a_larger_picture_in_float32():
    torch.manual_seed(0)
    options = {"min_size": 90, "max_size": 400, "box_detections_per_img": 10}
    options |= {"rpn_post_nms_top_n_test": 50}
    model = shaken(MaskRCNN(pyramid(), 4, **options), torch.float32, by=0.02)
    small, large = pictures((90, 125), (150, 90), dtype=torch.float32)
    with torch.no_grad():
        (alone,), beside = model([small]), model([large, small])[1]
    assert len(alone["boxes"]) and torch.equal(alone["labels"], beside["labels"])
    for name, value in alone.items():
        torch.testing.assert_close(beside[name], value, atol=1e-5, rtol=1e-5)


def test_the_published_schedule():
    model = torch.nn.Linear(2, 2)
    optimizer, schedule = mask_rcnn_schedule(model, 1000)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    rates = [schedule.lr_lambdas[0](step) for step in (0, 250, 500, 7999, 8000, 10999, 11000)]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01])
    assert optimizer.defaults["lr"] == 2e-4
    _, short = mask_rcnn_schedule(model, 10, 6, warmup=0)
    assert [short.lr_lambdas[0](step) for step in (0, 39, 40, 55)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )


def test_strides_that_do_not_double():
    with pytest.raises(ValueError, match=r"twice the one before, found \[4, 8, 16, 16\]"):
        MaskRCNN(pyramid(output_stride=16), 3)
    own = MaskRCNN(pyramid(out_indices=(1, 2, 3)), 3, rpn_post_nms_top_n_train=7)
    assert own.strides == [8, 16, 32, 64]
    assert own.detector.rpn._post_nms_top_n["training"] == 7


def test_it_trains():
    torch.manual_seed(0)
    model = MaskRCNN(pyramid(), 3, min_size=64, max_size=128).double().train()
    images = pictures((64, 96), (80, 64))
    targets = [
        {
            "boxes": torch.tensor([[4.0, 4.0, 40.0, 50.0]]).double(),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, *image.shape[1:], dtype=torch.uint8),
        }
        for image in images
    ]
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert set(losses) == {
        "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    assert all(p.grad is not None for p in model.detector.roi_heads.parameters())


def test_pyramids():
    backbone = PyramidBackbone(pyramid(out_indices=(1, 2, 3)), 16, "p6p7").double()
    (image,) = pictures((64, 128))
    levels = backbone(image[None])
    assert list(levels) == ["0", "1", "2", "p6", "p7"]
    shapes = [tuple(level.shape[1:]) for level in levels.values()]
    assert shapes == [(16, 8, 16), (16, 4, 8), (16, 2, 4), (16, 1, 2), (16, 1, 1)]
    assert list(PyramidBackbone(pyramid(), 16).double()(image[None])) == [
        "0",
        "1",
        "2",
        "3",
        "pool",
    ]
    with pytest.raises(ValueError, match="extra must be"):
        PyramidBackbone(pyramid(), extra="p6")
