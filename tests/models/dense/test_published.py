"""No published weights can be had here: entries are made from the published configurations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointcluster.models import create_model
from pointcluster.models.dense import mask_rcnn, semantic_fpn
from tests.models.dense import published
from tests.models.published import checkpoint

pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def segmentation():
    return published.semantic_fpn(classes=7)


def test_semantic_fpn_answers_as_its_checkpoint_says(segmentation):
    """Against the published head, written out by the entries' own names."""
    model = semantic_fpn("coc_small", 7).double().eval()
    model.load_published({"state_dict": segmentation, "meta": {}})
    pictures = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)).double()
    e = segmentation

    def conv(x, name, **options):
        return F.conv2d(x, e[f"{name}.weight"], e.get(f"{name}.bias"), **options)

    def stretched(x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=False)

    with torch.no_grad():
        maps = model.backbone.body(pictures)
        levels = [conv(x, f"neck.lateral_convs.{i}.conv") for i, x in enumerate(maps)]
        for i in (2, 1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], levels[i].shape[2:])
        levels = [conv(x, f"neck.fpn_convs.{i}.conv", padding=1) for i, x in enumerate(levels)]
        total = 0
        for i, x in enumerate(levels):
            for number in range(max(1, i)):
                name = f"decode_head.scale_heads.{i}.{2 * number}"
                x = conv(x, f"{name}.conv", padding=1)
                statistics = [e[f"{name}.bn.{part}"] for part in ("running_mean", "running_var")]
                x = F.batch_norm(x, *statistics, e[f"{name}.bn.weight"], e[f"{name}.bn.bias"])
                x = stretched(x.relu(), [2 * side for side in x.shape[2:]]) if i else x.relu()
            total = total + x
        expected = stretched(conv(total, "decode_head.conv_seg"), pictures.shape[2:])
        assert expected.std() > 0.1
        torch.testing.assert_close(model(pictures), expected, atol=1e-8, rtol=1e-8)


def test_segmentation_that_does_not_fit(segmentation):
    model = semantic_fpn("coc_small", 7)
    key = "decode_head.scale_heads.3.4.bn.running_var"
    with pytest.raises(ValueError, match=r"heads.3.4.1.running_var is missing"):
        model.load_published({k: v for k, v in segmentation.items() if k != key})
    with pytest.raises(ValueError, match=r"auxiliary_head.x is not known"):
        model.load_published(segmentation | {"auxiliary_head.x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"classifier.weight has shape \[7, .* expected \[8, "):
        semantic_fpn("coc_small", 8).load_published(segmentation)
    with pytest.raises(ValueError, match="is it one of ImageNet"):
        model.load_published(checkpoint("coc_small"))


def test_mask_rcnn_answers_as_its_checkpoint_says():
    entries = published.mask_rcnn(classes=3)
    model = mask_rcnn("coc_small", 4).double().eval()
    model.load_published({"state_dict": entries})
    e, heads = entries, model.detector.roi_heads
    pooled = torch.randn(2, 256, 7, 7, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        x = pooled.flatten(1)
        for part in ("shared_fcs.0", "shared_fcs.1"):
            weight, bias = (e[f"roi_head.bbox_head.{part}.{kind}"] for kind in ("weight", "bias"))
            x = F.linear(x, weight, bias).relu()
        scores, boxes = heads.box_predictor(heads.box_head(pooled))
        box = "roi_head.bbox_head.fc_"
        expected = F.linear(x, e[f"{box}cls.weight"], e[f"{box}cls.bias"])  # background last
        torch.testing.assert_close(scores, expected[:, [3, 0, 1, 2]])
        expected = F.linear(x, e[f"{box}reg.weight"], e[f"{box}reg.bias"])
        torch.testing.assert_close(boxes[:, 4:], expected)
        pooled = torch.randn(1, 256, 14, 14, generator=torch.Generator().manual_seed(1)).double()
        x, mask = pooled, "roi_head.mask_head"
        for number in range(4):
            name = f"{mask}.convs.{number}.conv"
            x = F.conv2d(x, e[f"{name}.weight"], e[f"{name}.bias"], padding=1).relu()
        name = f"{mask}.upsample"
        x = F.conv_transpose2d(x, e[f"{name}.weight"], e[f"{name}.bias"], stride=2).relu()
        name = f"{mask}.conv_logits"
        expected = F.conv2d(x, e[f"{name}.weight"], e[f"{name}.bias"])
        found = heads.mask_predictor(heads.mask_head(pooled))
        torch.testing.assert_close(found[:, 1:], expected)
        levels = [pooled]
        logits, offsets = model.detector.rpn.head(levels)
        x = F.conv2d(
            pooled, e["rpn_head.rpn_conv.weight"], e["rpn_head.rpn_conv.bias"], padding=1
        ).relu()
        for found, name in [(logits[0], "cls"), (offsets[0], "reg")]:
            name = f"rpn_head.rpn_{name}"
            torch.testing.assert_close(found, F.conv2d(x, e[f"{name}.weight"], e[f"{name}.bias"]))
    body = create_model("coc_small", features_only=True)
    body.load_published({k[9:]: v for k, v in entries.items() if k.startswith("backbone.")})
    for key, value in body.state_dict().items():
        assert torch.equal(model.detector.backbone.body.state_dict()[key].float(), value)
    with pytest.raises(ValueError, match="do not fit"):
        mask_rcnn("coc_small", 5).load_published(entries)


# Starting a pyramid from a classifier.


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_a_pyramid_starts_from_imagenet(prefix, capsys):
    entries = checkpoint("coc_small") | {"fea_pos": torch.zeros(1, 2, 224, 224)}
    model = create_model("coc_small_feat7", features_only=True)
    with torch.no_grad():
        model.norms["2"].weight.fill_(3)
    model.load_published({prefix + k: v for k, v in entries.items()}, backbone=True)
    expected = create_model("coc_small")
    expected.load_published(checkpoint("coc_small"))
    wanted = expected.state_dict()
    for key, value in model.state_dict().items():
        if not key.startswith("norms."):
            assert torch.equal(value, wanted[key]), key
    assert torch.equal(model.norms["2"].weight, torch.full((320,), 3.0))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    for key in ("norm.weight", "norm.bias", "head.weight", "head.bias", "fea_pos"):
        assert key in said
    assert "network" not in said and said.count("norms.") == 8


def test_a_pyramid_starts_from_segmentation(segmentation, capsys):
    model = create_model("coc_small", features_only=True, out_indices=(1, 3))
    model.load_published({"state_dict": segmentation, "meta": {"epoch": 1}}, backbone=True)
    said = capsys.readouterr().out
    assert "decode_head.conv_seg.weight" in said and "norm0.weight" in said
    assert said.endswith("new: nothing\n")
    found = model.norms["3"].weight
    torch.testing.assert_close(found, segmentation["backbone.norm6.weight"].float())


def test_networks_of_number_4_start_from_imagenet(capsys):
    for model in (semantic_fpn("coc_small", 5), mask_rcnn("coc_small", 5)):
        model.load_published(checkpoint("coc_small"), backbone=True)
        body = model.detector.backbone.body if hasattr(model, "detector") else model.backbone.body
        key = "network.0.0.norm1.weight"
        torch.testing.assert_close(
            body.stages[0][0].norm1.weight, checkpoint("coc_small")[key].float()
        )
    assert capsys.readouterr().out.count("left out") == 2


def test_all_else_is_strict():
    entries = checkpoint("coc_small")
    model = create_model("coc_small", features_only=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    key = "network.0.0.norm1.weight"
    with pytest.raises(ValueError, match=r"stages.0.0.norm1.weight is missing"):
        model.load_published({k: v for k, v in entries.items() if k != key}, backbone=True)
    with pytest.raises(ValueError, match=r"extra.weight is not known"):
        model.load_published(entries | {"extra.weight": torch.zeros(1)}, backbone=True)
    with pytest.raises(ValueError, match=r"neck.x is not known"):  # no prefix: no such network
        model.load_published(entries | {"neck.x": torch.zeros(1)}, backbone=True)
    with pytest.raises(ValueError, match=r"norm0.weight|norms.0.weight has shape"):
        model.load_published(entries | {"norm0.weight": torch.zeros(3)}, backbone=True)
    with pytest.raises(ValueError, match="do not fit"):
        model.load_published(checkpoint("coc_tiny"), backbone=True)
    prefixed = {f"backbone.{k}": v for k, v in entries.items()} | {"other.x": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 entries do not fit.*other.x is not known"):
        model.load_published(prefixed, backbone=True)
    with pytest.raises(ValueError, match="missing"):  # without the option as strict as ever
        model.load_published(entries)
    with pytest.raises(ValueError, match="features_only"):
        create_model("coc_small").load_published(entries, backbone=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
