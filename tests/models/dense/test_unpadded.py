from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

from pointcluster.models.dense import Unpadded
from tests.models.dense.networks import padded, pictures, pyramid, shaken


class Decoder(nn.Module):
    """A pyramid, convolutions one after another, and a norm over the map."""

    def __init__(self, answer="maps", multiple=1):
        super().__init__()
        self.net, self.answer, self.multiple = pyramid(out_indices=(0,)), answer, multiple
        self.head = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 5, 3, padding=1),
        )

    def forward(self, pictures, scale=1.0):
        if any(side % self.multiple for side in pictures.shape[2:]):
            raise RuntimeError(f"sides must be multiples of {self.multiple}")
        scores = scale * self.head(self.net(pictures)[0])
        rows = scores.flatten(2).mT
        if self.answer == "maps":
            return nn.functional.interpolate(scores, pictures.shape[2:], mode="bilinear")
        if self.answer == "numbered":
            return {0: scores, 1: rows}
        if self.answer == "named":
            return Answer(scores.mean(), [scores, (rows, None)])
        return {"loss": scores.mean(), "logits": scores, "queries": rows.mean(1), "rows": rows}


class Answer(NamedTuple):
    loss: torch.Tensor
    maps: list


SIZES = [(40, 52), (64, 48), (40, 52), (33, 70)]


@pytest.mark.parametrize("by", ["sizes", "tensor", "mask"])
def test_maps_alone_and_beside_larger_pictures(by):
    images = pictures(*SIZES)
    model = shaken(Decoder())
    ours, batch = Unpadded(model), padded(images)
    mask = torch.zeros(4, *batch.shape[2:], dtype=torch.int64)
    for row, (h, w) in zip(mask, SIZES, strict=True):
        row[:h, :w] = 1
    given = {
        "sizes": {"sizes": SIZES},
        "tensor": {"sizes": torch.tensor(SIZES)},
        "mask": {"mask": mask},
    }
    with torch.no_grad():
        found = ours(batch, scale=2.0, **given[by])
        trapped = model(batch, scale=2.0)
        assert found.shape == (4, 5, 64, 70)
        for i, (h, w) in enumerate(SIZES):
            alone = model(images[i][None], scale=2.0)[0]
            torch.testing.assert_close(found[i, :, :h, :w], alone, atol=1e-10, rtol=0)
            assert not found[i, :, h:].any() and not found[i, :, :, w:].any()
            assert (trapped[i, :, :h, :w] - alone).abs().max() > 1e-2
        for one, two in zip(ours(images, scale=2.0), images, strict=True):
            torch.testing.assert_close(one, model(two[None], scale=2.0)[0])
        torch.testing.assert_close(ours(batch), model(batch))  # all of them are picture


def test_answers_of_many_parts():
    images = pictures(*SIZES)
    batch = padded(images)
    model = shaken(Decoder("dict"))
    with torch.no_grad():
        found = Unpadded(model)(batch, SIZES)
        alone = [model(image[None]) for image in images]
        listed = Unpadded(model)(images)
    assert found["logits"].shape == (4, 5, 16, 18) and found["queries"].shape == (4, 5)
    torch.testing.assert_close(found["loss"], sum(one["loss"] for one in alone) / 4)
    for i, one in enumerate(alone):
        torch.testing.assert_close(found["queries"][i], one["queries"][0])
        torch.testing.assert_close(found["rows"][i, : one["rows"].size(1)], one["rows"][0])
        torch.testing.assert_close(listed[i]["logits"], one["logits"][0])
    model = shaken(Decoder("named"))
    with torch.no_grad():
        found = Unpadded(model)(batch, SIZES)
        assert isinstance(found, Answer) and found.maps[1][1] is None
        torch.testing.assert_close(found.maps[0][3, :, :9, :18], model(images[3][None]).maps[0][0])
        assert len(Unpadded(model)(images)) == 4


def test_answers_by_numbers():
    (image,) = pictures(SIZES[0])
    model = shaken(Decoder("numbered"))
    with torch.no_grad():
        (found,), expected = Unpadded(model)([image]), model(image[None])
    assert found.keys() == {0, 1}
    torch.testing.assert_close(found[1], expected[1][0])


def beside_a_larger_one(call):
    """The answers for a picture of 128 x 160 alone, and in a batch by sizes and by mask."""
    sizes = [(128, 160), (160, 128)]
    small, large = pictures(*sizes, dtype=torch.float32)
    batch = padded([small, large])
    mask = torch.zeros(2, 160, 160, dtype=torch.int64)
    for row, (h, w) in zip(mask, sizes, strict=True):
        row[:h, :w] = 1
    with torch.no_grad():
        return call(small[None]), call(batch, sizes=sizes), call(batch, mask=mask), batch


@pytest.mark.parametrize("kind", ["Unet", "FPN", "PAN", "DeepLabV3", "DeepLabV3Plus"])
def test_networks_of_smp(kind):
    smp = pytest.importorskip("segmentation_models_pytorch")
    import pointcluster.timm  # noqa: F401

    torch.manual_seed(0)
    strides = {"PAN": 16, "DeepLabV3": 8, "DeepLabV3Plus": 16}
    options = {"encoder_output_stride": strides[kind]} if kind in strides else {}
    model = getattr(smp, kind)("tu-coc_nano", encoder_weights=None, classes=5, **options)
    ours = Unpadded(model.eval(), divisor=32)
    alone, by_sizes, by_mask, batch = beside_a_larger_one(ours)
    assert torch.equal(by_sizes, by_mask)
    torch.testing.assert_close(by_sizes[:1, :, :128], alone, atol=1e-5, rtol=1e-5)
    ours.train()(batch).square().mean().backward()
    assert model.encoder.model.reducers[0].linear.weight.grad.abs().sum() > 0


def test_networks_of_transformers():
    hf = pytest.importorskip("transformers")
    import pointcluster.timm  # noqa: F401

    torch.manual_seed(0)
    body = hf.TimmBackboneConfig(
        backbone="coc_nano", out_indices=[0, 1, 2, 3], use_pretrained_backbone=False
    )
    config = hf.UperNetConfig(
        backbone_config=body, num_labels=5, hidden_size=32, auxiliary_in_channels=96
    )
    model = hf.UperNetForSemanticSegmentation(config).eval()
    alone, by_sizes, by_mask, _ = beside_a_larger_one(Unpadded(model))
    assert type(by_mask) is type(model(torch.rand(1, 3, 32, 32)))
    assert torch.equal(by_sizes.logits, by_mask.logits)
    torch.testing.assert_close(by_mask.logits[:1, :, :128], alone.logits, atol=1e-5, rtol=1e-5)


def test_sides_that_must_be_multiples():
    images = pictures((40, 52), (64, 64), (33, 70))
    model = shaken(Decoder(multiple=32))
    with pytest.raises(RuntimeError, match="multiples of 32"):
        model(images[0][None])
    with torch.no_grad():
        found = Unpadded(model, divisor=32)(padded(images), [(40, 52), (64, 64), (33, 70)])
        torch.testing.assert_close(found[1, :, :, :64], model(images[1][None])[0])
        stretched = nn.functional.interpolate(images[2][None], (64, 96), mode="bilinear")
        back = nn.functional.interpolate(model(stretched), (33, 70), mode="bilinear")
        torch.testing.assert_close(found[2, :, :33, :70], back[0])


def test_training_goes_through():
    images = pictures(*SIZES)
    model = shaken(Decoder()).train()
    found = Unpadded(model)(padded(images), SIZES)
    label = torch.full((4, 64, 70), 255)
    for row, (h, w) in zip(label, SIZES, strict=True):
        row[:h, :w] = 1
    nn.functional.cross_entropy(found, label, ignore_index=255).backward()
    assert model.net.reducers[0].linear.weight.grad.abs().sum() > 0


def test_what_does_not_fit():
    images = pictures((40, 52), (64, 48))
    batch, ours = padded(images), Unpadded(Decoder())
    mask = torch.ones(2, 64, 52)
    with pytest.raises(ValueError, match="not both"):
        ours(batch, SIZES[:2], mask)
    with pytest.raises(ValueError, match=r"sizes must be 2 of at most 64 x 52, found \[\(40, 53\)"):
        ours(batch, [(40, 53), (64, 48)])
    with pytest.raises(ValueError, match="sizes must be 2"):
        ours(batch, [(40, 52)])
    with pytest.raises(ValueError, match=r"mask must be \[2, 64, 52\]"):
        ours(batch, mask=mask[:, :-1])
    mask[0, 3, 4] = 0
    with pytest.raises(ValueError, match="rectangle"):
        ours(batch, mask=mask)
    with pytest.raises(ValueError, match="rectangle"):
        ours(batch, mask=torch.zeros(2, 64, 52))
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        ours(batch[0])
    with pytest.raises(ValueError, match="say no sizes"):
        ours(images, sizes=[(40, 52), (64, 48)])
    with pytest.raises(ValueError, match="at least one"):
        ours([])
    with pytest.raises(ValueError, match="divisor"):
        Unpadded(nn.Identity(), divisor=0)
    with pytest.raises(TypeError, match="found str"):
        Unpadded(Speaking())(batch, [(40, 52), (64, 48)])


class Speaking(nn.Module):
    def forward(self, pictures):
        return "scores"
