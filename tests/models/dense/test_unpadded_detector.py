from __future__ import annotations

import pytest
import torch
from torch import nn

from pointcluster.models.dense import PyramidBackbone, UnpaddedDetector, unpadded_detector
from tests.models.dense.networks import pictures, pyramid, shaken

detection = pytest.importorskip("torchvision.models.detection")

SIDE = {"min_size": 100, "max_size": 400}
KINDS = ["faster_rcnn", "mask_rcnn", "keypoint_rcnn", "retinanet", "fcos"]


def detector(kind, **options):
    """One of torchvision's on a small pyramid, with weights that tell pictures apart."""
    torch.manual_seed(0)
    stages = (1, 2, 3) if kind in ("retinanet", "fcos") else (0, 1, 2, 3)
    extra = "pool" if len(stages) == 4 else "p6p7"
    backbone = PyramidBackbone(pyramid(out_indices=stages), 64, extra)
    options = SIDE | options
    if kind == "retinanet":
        sizes = tuple((side, 1.3 * side) for side in (16, 32, 64, 128, 256))
        anchors = detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
        options = {"anchor_generator": anchors, "score_thresh": 0.0} | options
        return shaken(detection.RetinaNet(backbone, 4, **options), by=0.05)
    if kind == "fcos":
        return shaken(detection.FCOS(backbone, 4, **({"score_thresh": 0.0} | options)), by=0.05)
    sizes = tuple((side,) for side in (16, 32, 64, 128, 256))
    anchors = detection.anchor_utils.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    options = {
        "rpn_anchor_generator": anchors,
        "box_score_thresh": 0.0,
        "rpn_post_nms_top_n_test": 100,
        "box_detections_per_img": 20,
    } | options
    kinds = {"faster_rcnn": "FasterRCNN", "mask_rcnn": "MaskRCNN", "keypoint_rcnn": "KeypointRCNN"}
    if kind == "keypoint_rcnn":
        options["num_keypoints"] = 3
    return shaken(getattr(detection, kinds[kind])(backbone, 4, **options), by=0.05)


def targets(images, kind="", boxes=4):
    generator = torch.Generator().manual_seed(2)
    found = []
    for image in images:
        size = torch.tensor([image.size(2), image.size(1)] * 2)
        corner = torch.rand(boxes, 2, generator=generator, dtype=torch.float64) * 0.5
        side = 0.2 + 0.3 * torch.rand(boxes, 2, generator=generator, dtype=torch.float64)
        target = {
            "boxes": torch.cat([corner, corner + side], 1) * size,
            "labels": torch.randint(1, 4, (boxes,), generator=generator),
        }
        if kind == "mask_rcnn":
            shape = (boxes, *image.shape[1:])
            target["masks"] = torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)
        found.append(target)
    return found


def assert_alike(found, expected, atol=1e-5):
    assert found.keys() == expected.keys() and len(found["boxes"]) > 10
    assert torch.equal(found["labels"], expected["labels"])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_alone_and_beside_a_larger_one(kind):
    small, large, other = pictures((100, 125), (130, 100), (125, 100))
    plain = detector(kind)
    ours = UnpaddedDetector(plain)
    assert ours.state_dict().keys() == {f"detector.{key}" for key in plain.state_dict()}
    with torch.no_grad():
        alone = [ours([image])[0] for image in (small, large, other)]
        together = ours([large, small, other, small])
        padded_alone, padded_beside = plain([small])[0], plain([small, large])[0]
    for found, expected in zip(together, [alone[i] for i in (1, 0, 2, 0)], strict=True):
        assert_alike(found, expected)
    # The trap: torchvision by itself does not.
    apart = (
        padded_alone["boxes"].shape != padded_beside["boxes"].shape
        or (padded_alone["boxes"] - padded_beside["boxes"]).abs().max() > 1e-2
    )
    assert apart


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_size_that_the_strides_divide_as_torchvision(kind):
    images = pictures((128, 256), (128, 256))
    plain = detector(kind, min_size=128)
    with torch.no_grad():
        expected = plain(images)
        for found, wanted in zip(UnpaddedDetector(plain)(images), expected, strict=True):
            assert_alike(found, wanted, 1e-8)


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("apart", [False, True])
def test_losses_are_those_of_the_batch(kind, apart, monkeypatch):
    """Of one size, together or picture by picture, as torchvision works them out."""
    images = pictures((128, 256), (128, 256), (128, 256))
    plain = detector(kind, min_size=128).train()
    wanted = targets(images, kind)
    wanted[1] = {name: value[:0] for name, value in wanted[1].items()}  # nothing is in it
    wanted[2] = {name: value[:2] for name, value in wanted[2].items()}
    torch.manual_seed(3)
    expected = plain(images, wanted)
    ours = UnpaddedDetector(plain)
    if apart:
        monkeypatch.setattr(
            unpadded_detector,
            "alike",
            lambda sizes: {Sized(s, i): [i] for i, s in enumerate(sizes)},
        )
    torch.manual_seed(3)
    found = ours(images, wanted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-8, rtol=1e-8)
    sum(found.values()).backward()
    assert plain.backbone.body.reducers[0].linear.weight.grad.abs().sum() > 0


class Sized(tuple):
    """A size that equals no other."""

    __slots__ = ()

    def __new__(cls, size, _):
        return super().__new__(cls, size)

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn", "retinanet"])
def test_losses_beside_a_larger_picture(kind, monkeypatch):
    """Where pictures count alike, the loss of several is the mean of what they have alone."""
    monkeypatch.setattr(torch, "randperm", lambda n, **options: torch.arange(n))
    options = {}
    if kind != "retinanet":  # as many samples of each kind in every picture
        options = {"rpn_batch_size_per_image": 32, "rpn_positive_fraction": 0.125}
        options |= {"box_batch_size_per_image": 16, "box_positive_fraction": 0.25}
    images = pictures((100, 125), (130, 100))
    ours = UnpaddedDetector(detector(kind, **options)).train()
    wanted = targets(images, kind)
    alone = [ours([images[i]], [wanted[i]]) for i in range(2)]
    together = ours(images, wanted)
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)
        assert (alone[0][name] - alone[1][name]).abs() > 1e-6


def test_losses_of_fcos_beside_a_larger_picture():
    """All three are sums over what boxes hold in all pictures, divided by how much it is."""
    images = pictures((100, 125), (130, 100))
    ours = UnpaddedDetector(detector("fcos")).train()
    wanted = targets(images)
    alone = [ours([images[i]], [wanted[i]]) for i in range(2)]
    together = ours(images, wanted)
    shares = [
        (together[name] - alone[1][name]) / (alone[0][name] - alone[1][name]) for name in together
    ]
    assert len(shares) == 3 and 0.1 < shares[0] < 0.9
    torch.testing.assert_close(torch.stack(shares), shares[0].expand(3))
    sum(together.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())


def test_anchors_lie_whole_strides_apart_whatever_the_size():
    ours = UnpaddedDetector(detector("faster_rcnn"))
    assert ours.strides == [4, 8, 16, 32, 64]
    (image,) = pictures((100, 129))
    maps = list(ours.detector.backbone(image[None]).values())
    assert [tuple(level.shape[2:]) for level in maps][:4] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    anchors = ours._anchors(ours.detector.rpn.anchor_generator, maps)
    for level, stride, places in zip(maps, ours.strides, anchors, strict=True):
        middles = ((places[:, :2] + places[:, 2:]) / 2)[::3]
        down, right = level.shape[2:]
        torch.testing.assert_close(
            middles.amax(0), stride * torch.tensor([right - 1.0, down - 1.0]).double()
        )


def test_measuring_leaves_the_network_as_it_is():
    net = pyramid(norm=True)
    plain = detection.FasterRCNN(PyramidBackbone(net, 32), 3, **SIDE)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    ours = UnpaddedDetector(plain)
    assert ours.training and plain.training and ours.detector is plain
    for name, value in ours.detector.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_is_no_detector_and_what_no_targets():
    with pytest.raises(TypeError, match="no transform"):
        UnpaddedDetector(nn.Conv2d(3, 3, 1))
    with pytest.raises(TypeError, match="found SSD"):
        boxes = detection.anchor_utils.DefaultBoxGenerator([[2]])
        head = detection.ssd.SSDHead([8], boxes.num_anchors_per_location(), 3)
        UnpaddedDetector(detection.ssd.SSD(nn.Conv2d(3, 8, 1), boxes, (64, 64), 3, head=head))
    ours = UnpaddedDetector(detector("faster_rcnn")).train()
    (image,) = pictures((100, 120))
    with pytest.raises(ValueError, match="needs targets"):
        ours([image])
    with pytest.raises(ValueError, match="at least one"):
        ours([])
    wanted = targets([image])
    wanted[0]["boxes"][1, 2] = wanted[0]["boxes"][1, 0]
    with pytest.raises(ValueError, match="picture 0 has a box without"):
        ours([image], wanted)
    with pytest.raises(ValueError, match="targets of 1 pictures, found 2"):
        ours([image], 2 * wanted)
    with pytest.raises(ValueError, match="picture 0 has no labels"):
        ours([image], [{"boxes": wanted[0]["boxes"]}])
    with pytest.raises(ValueError, match=r"boxes \[N, 4\] and labels \[N\], found \[0\] and \[0\]"):
        ours([image], [{"boxes": torch.zeros(0), "labels": torch.zeros(0)}])


def test_on_any_backbone():
    """A plain network of convolutions with torchvision's pyramid, too, answers as if alone."""
    torch.manual_seed(0)
    body = detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    options = {"min_size": 64, "max_size": 128, "box_score_thresh": 0.0}
    options |= {"rpn_post_nms_top_n_test": 50}
    ours = UnpaddedDetector(detection.FasterRCNN(body, 3, **options).eval())
    assert ours.strides == [4, 8, 16, 32, 64]
    small, large = pictures((64, 80), (96, 64), dtype=torch.float32)
    with torch.no_grad():
        assert_alike(ours([large, small])[1], ours([small])[0])
