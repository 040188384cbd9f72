from __future__ import annotations

import pytest
import torch

from pointcluster.models import create_model
from pointcluster.models.dense import (
    SemanticFPN,
    Unpadded,
    semantic_fpn,
    semantic_fpn_schedule,
)
from tests.models.dense.networks import SMALL, padded, pictures, pyramid, shaken

pytest.importorskip("torchvision")


def small(**options):
    return SemanticFPN(pyramid(**options), 5, width=16, head_width=8)


@pytest.mark.parametrize("size", [(64, 96), (61, 33), (32, 32), (17, 90)])
def test_a_class_for_every_pixel_of_pictures_of_any_size(size):
    model = shaken(small())
    (image,) = pictures(size)
    with torch.no_grad():
        scores = model(image[None])
    assert scores.shape == (1, 5, *size) and scores.isfinite().all() and scores.std() > 0


def test_the_published_sizes():
    model = semantic_fpn("coc_small")
    assert model.num_classes == 150 and model.backbone.out_channels == 256
    assert [len(head) for head in model.heads] == [1, 2, 4, 6]
    assert model.heads[0][0][0].out_channels == 128 and model.dropout.p == 0.1
    # The paper's table of ADE20K: 17.7M parameters, as far as it says.
    count = sum(p.numel() for p in model.parameters())
    assert 17.5e6 < count < 18.6e6


def test_pictures_of_several_sizes():
    images = pictures((40, 52), (64, 48))
    model = shaken(small())
    with torch.no_grad():
        found = Unpadded(model)(padded(images), [(40, 52), (64, 48)])
        for image, scores in zip(images, found, strict=True):
            inside = scores[:, : image.size(1), : image.size(2)]
            torch.testing.assert_close(inside, model(image[None])[0], atol=1e-10, rtol=0)


def test_it_learns():
    torch.manual_seed(0)
    model = small(norm=True).train()
    images = torch.rand(4, 3, 32, 32)
    wanted = (images[:, 0] > 0.5).long()
    wanted[:, :4] = 255
    optimizer, schedule = semantic_fpn_schedule(model, steps=30, lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(images), wanted, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert (
        optimizer.param_groups[0]["lr"] == 0 and optimizer.param_groups[0]["weight_decay"] == 1e-4
    )


def test_the_published_schedule():
    optimizer, schedule = semantic_fpn_schedule(small())
    assert optimizer.param_groups[0]["lr"] == 1e-4 and schedule.total_iters == 80_000
    assert schedule.power == 0.9


def test_backbones():
    with_own = semantic_fpn(create_model("coc_tiny", features_only=True, **SMALL), 3)
    assert with_own.backbone.body.feature_info[0]["num_chs"] == 8
    assert semantic_fpn("coc_tiny", 3, **SMALL).num_classes == 3
    with pytest.raises(ValueError, match="features_only"):
        SemanticFPN(create_model("coc_tiny", **SMALL), 3)
    with pytest.raises(ValueError, match="no network of pictures 'point_coc_tiny'"):
        semantic_fpn("point_coc_tiny", 3)
    with pytest.raises(TypeError, match="takes no norm"):
        semantic_fpn(pyramid(), 3, norm=True)
    with pytest.raises(ValueError, match="times the first"):
        SemanticFPN(pyramid(strides=(4, 3, 2, 2)), 3)
    with pytest.raises(ValueError, match="times the first"):
        SemanticFPN(pyramid(out_indices=(1, 0)), 3)
    with pytest.raises(ValueError, match="num_classes"):
        small_of_none = pyramid()
        SemanticFPN(small_of_none, 0)
