"""Stages that keep all points of the one before: output_stride."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.geometry import lattice_positions
from pointcluster.models import create_model
from pointcluster.models.coc import SIZES, dilated

SMALL = {
    "channels": (6, 8, 10, 12),
    "depths": (1, 1, 1, 1),
    "heads": (2, 2, 2, 2),
    "head_channels": 4,
    "mlp_ratios": (2, 2, 2, 2),
}


def net(output_stride=None, **options):
    torch.manual_seed(0)
    options = SMALL | {"layer_scale": 0.5, "num_classes": 5} | options
    return create_model("coc_tiny", output_stride=output_stride, **options).double().eval()


def pictures(height, width, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)


def test_strides_and_dilations():
    assert dilated([4, 2, 2, 2], None) == ([4, 2, 2, 2], [1, 1, 1, 1])
    assert dilated([4, 2, 2, 2], 32) == ([4, 2, 2, 2], [1, 1, 1, 1])
    assert dilated([4, 2, 2, 2], 16) == ([4, 2, 2, 1], [1, 1, 1, 1])
    assert dilated([4, 2, 2, 2], 8) == ([4, 2, 1, 1], [1, 1, 1, 2])
    assert dilated([4, 2, 2, 2], 4) == ([4, 1, 1, 1], [1, 1, 2, 4])
    assert dilated([2, 1, 2, 1, 2], 2) == ([2, 1, 1, 1, 1], [1, 1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"output_stride must be one of \[4, 8, 16, 32\], found 7"):
        net(7)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_reductions_and_sizes(stride):
    model = net(stride, features_only=True)
    wanted = [min(full, stride) for full in (4, 8, 16, 32)]
    assert [info["reduction"] for info in model.feature_info] == wanted
    maps = model(pictures(64, 96))
    assert [tuple(level.shape[2:]) for level in maps] == [(64 // s, 96 // s) for s in wanted]
    model.load_state_dict(net(features_only=True).state_dict())  # the weights are the same


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(64, 96), (61, 35)])
def test_every_so_many_points_are_those_of_the_network_as_it_is(stride, size):
    """Of squares alone: with scales of 0 the blocks pass on what they get."""
    images = pictures(*size)
    plain, dense = net(layer_scale=0.0), net(stride, layer_scale=0.0)
    dense.load_state_dict(plain.state_dict())
    _, expected = plain.forward_intermediates(images)
    _, found = dense.forward_intermediates(images)
    for stage, (few, many) in enumerate(zip(expected, found, strict=True)):
        step = 1 if many.shape == few.shape else max(1, (4 << stage) // stride)
        # A border that strides do not divide holds zeros in the one, further points in the other.
        few = few[:, :, :-1, :-1] if size == (61, 35) else few
        many = many[:, :, ::step, ::step][:, :, : few.size(2), : few.size(3)]
        torch.testing.assert_close(many, few)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["grid", "extent"])
def test_points_answer_as_pictures(stride, name):
    sizes = [(64, 96), (50, 61)]
    model = net(stride, norm=True)
    images = [pictures(*size, batch=1)[0] for size in sizes]
    clouds = []
    for image, size in zip(images, sizes, strict=True):
        x, pos = image.flatten(1).t().contiguous(), lattice_positions(size, dtype=torch.float64)
        if name == "extent":
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
            x, pos = x[order], pos[order]
        clouds.append(Data(x=x, pos=pos, **{name: torch.tensor([size])}))
    with torch.no_grad():
        expected = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(Batch.from_data_list(clouds)), expected)


def test_layers_that_want_to_be_called():
    model, images = net(8), pictures(64, 96)
    with torch.no_grad():
        expected = model(images)
        for reducer in model.reducers:
            reducer.linear.register_forward_hook(lambda *_: None)
        torch.testing.assert_close(model(images), expected)


def test_clusters_of_pixels():
    clusters = net(8).clusters(pictures(64, 96, 1))
    assert clusters.index.shape == (64 * 96, 2) and len(clusters.center_pos) == 4
    assert clusters.center_pos.abs().max() < 0.5


def test_the_small_network_for_little_data():
    size = SIZES["coc_nano"]
    assert size.channels == (32, 64, 96, 160) and size.depths == (1, 1, 2, 1)
    assert size.norm and size.layer_scale is None
    model = create_model("coc_nano", features_only=True)
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 0.8


def test_timm_and_its_features():
    timm = pytest.importorskip("timm")
    import pointcluster.timm  # noqa: F401

    model = timm.create_model("coc_nano", features_only=True, output_stride=16)
    assert model.feature_info.reduction() == [4, 8, 16, 16]
    assert (
        timm.create_model("coc_nano", output_stride=8, num_classes=3).config["output_stride"] == 8
    )
