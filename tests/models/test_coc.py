from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.geometry import image_hierarchy, lattice_positions
from pointcluster.models import create_model, list_models, load_model, save_model
from tests.models.published import DATA, ENTRIES, checkpoint, pictures

SMALL = {
    "channels": (8, 12, 16),
    "depths": (1, 2, 1),
    "heads": (2, 2, 4),
    "mlp_ratios": (2, 2, 2),
    "head_channels": 4,
    "fold": (2, 1, 1),
    "centers": 2,
    "strides": (2, 2, 2),
    "norm": False,
}
EVERY_POINT = {"strides": (2, 1, 2), "norm": True}


def small(dtype=torch.float64, **options):
    """A network of few channels; its scales are such that every branch counts."""
    torch.manual_seed(0)
    options = {"num_classes": 5, "layer_scale": 0.5} | SMALL | options
    model = create_model("coc_micro", **options).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def points_of(image, position="published", **fields):
    grid = tuple(image.shape[1:])
    pos = lattice_positions(grid, position, dtype=image.dtype)
    return Data(x=image.flatten(1).t().contiguous(), pos=pos, **fields)


@pytest.mark.parametrize("name", [n for n in ENTRIES if n.startswith("coc_") and "base" not in n])
def test_published_checkpoints_fit_entry_for_entry(name):
    model = create_model(name)
    model.load_published(checkpoint(name))
    count = sum(torch.Size(shape).numel() for shape in ENTRIES[name].values())
    assert sum(p.numel() for p in model.parameters()) == count
    key = "network.0.0.token_mixer.v.weight"
    width = model.stages[0][0].cluster.fv.out_features // 2
    found = model.state_dict()["stages.0.0.cluster.fv.weight"][width:]
    torch.testing.assert_close(found, checkpoint(name)[key].flatten(1).float())


@pytest.fixture(scope="module")
def tiny():
    model = create_model("coc_tiny").double().eval()
    model.load_published(checkpoint("coc_tiny"))
    return model


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DATA / "coc_tiny_224x224.json").read_text())


def test_the_published_answers(tiny, recorded):
    assert sum(p.numel() for p in tiny.parameters()) == recorded["params"]
    with torch.no_grad():
        logits = tiny(pictures(224, 224))
    expected = torch.tensor(recorded["logits"], dtype=torch.float64)
    torch.testing.assert_close(logits[:, :16], expected, rtol=0, atol=1e-5)
    assert logits.norm().item() == pytest.approx(recorded["logits_norm"], abs=1e-5)
    assert logits.argmax(dim=1).tolist() == recorded["argmax"]


def test_the_published_features_of_each_stage(tiny, recorded):
    images = pictures(224, 224)
    with torch.no_grad():
        stages = tiny.forward_intermediates(images, intermediates_only=True)
    for x, (mean, std) in zip(stages, recorded["stage_mean_std"], strict=True):
        assert x.mean().item() == pytest.approx(mean, abs=1e-6)
        assert x.std().item() == pytest.approx(std, abs=1e-4)


@pytest.mark.parametrize("stage", range(4))
def test_the_published_points_of_each_centre(tiny, recorded, stage):
    image = pictures(224, 224)[:1]
    for block in range(len(tiny.stages[stage])):
        found = tiny.clusters(image, stage=stage, block=block)
        pixels = (4 * 2**stage) ** 2  # that a point of the stage stands for
        index = found.index[found.region == 0]
        counts = [torch.bincount(index[:, head], minlength=4) for head in range(index.size(1))]
        counts = [(count / pixels).tolist() for count in counts]
        assert counts == recorded["points_per_centre"][f"stage{stage}_block{block}"]


@pytest.mark.parametrize("wrap", ["state_dict", "model", "state_dict_ema", None])
def test_wrapped_prefixed_and_older_checkpoints(wrap):
    entries = checkpoint("coc_tiny")
    expected = create_model("coc_tiny")
    expected.load_published(entries)
    older = {}
    names = {"token_mixer.f.": "token_mixer.fc1.", "token_mixer.proj.": "token_mixer.fc2."}
    names["token_mixer.v."] = "token_mixer.fc_v."
    for key, value in entries.items():
        for new, old in names.items():
            key = key.replace(new, old)
        if ".mlp." in key and value.dim() == 2:
            value = value[:, :, None, None]
        older[f"module.{key}"] = value
    model = create_model("coc_tiny")
    model.load_published(older if wrap is None else {wrap: older, "epoch": 3})
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


def test_checkpoints_that_do_not_fit_change_nothing():
    model = create_model("coc_tiny", num_classes=10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    entries = checkpoint("coc_tiny")
    with pytest.raises(ValueError, match="another number of classes"):
        model.load_published(entries)
    model = create_model("coc_tiny")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit"):
        model.load_published(checkpoint("coc_small"))
    with pytest.raises(ValueError, match="norm.bias is missing"):
        model.load_published({k: v for k, v in entries.items() if k != "norm.bias"})
    with pytest.raises(ValueError, match=r"fv.weight is missing"):
        key = "network.0.0.token_mixer.v.weight"
        model.load_published({k: v for k, v in entries.items() if k != key})
    with pytest.raises(ValueError, match="extra.weight is not known"):
        model.load_published(entries | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="no entries"):
        model.load_published({})
    with pytest.raises(ValueError, match="no averaged"):
        model.load_published(entries, ema=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (30, 17), (1, 1), (3, 2), (21, 64)])
@pytest.mark.parametrize("options", [{}, {"fold": (3, 2, 2)}, EVERY_POINT], ids=str)
def test_loose_pixels_give_the_lattice_answer(size, options):
    model = small(**options)
    images = pictures(*size)
    with torch.no_grad():
        expected = model(images)
        shuffled = []
        for image in images:
            data = points_of(image, extent=size)
            order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(1))
            data.x, data.pos = data.x[order], data.pos[order]
            shuffled.append(data)
        batch = Batch.from_data_list(shuffled)
        torch.testing.assert_close(model(batch), expected, rtol=0, atol=1e-10)
        # ... also with the groupings given, and nothing said about a lattice
        given = image_hierarchy(batch.pos, [size] * 2, model.plans, batch.batch)
        del batch.extent
        torch.testing.assert_close(model(batch, given), expected, rtol=0, atol=1e-10)
        lattice = Batch.from_data_list([points_of(image, grid=size) for image in images])
        torch.testing.assert_close(model(lattice), expected, rtol=0, atol=1e-12)


def test_gradients_of_loose_pixels_are_those_of_the_lattice():
    model = small(fold=(3, 2, 2))
    images = pictures(19, 22)
    model(images).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    batch = Batch.from_data_list([points_of(image, extent=(19, 22)) for image in images])
    model(batch).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-8, atol=1e-9)


def test_sizes_mixed_in_a_batch_do_not_see_each_other():
    model = small()
    images = [pictures(*size, batch=1)[0] for size in [(20, 28), (9, 40), (20, 28), (33, 5)]]
    data = [points_of(image, grid=tuple(image.shape[1:])) for image in images]
    with torch.no_grad():
        expected = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(Batch.from_data_list(data)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_any_subset_in_any_order(share):
    model = small()
    images = pictures(28, 28, batch=3)
    generator = torch.Generator().manual_seed(0)
    data = []
    for image in images:
        each = points_of(image, extent=(28, 28))
        kept = torch.randperm(784, generator=generator)[: max(1, int(share * 784))]
        each.x, each.pos = each.x[kept], each.pos[kept]
        data.append(each)
    with torch.no_grad():
        together = model(Batch.from_data_list(data))
        assert together.isfinite().all()
        for each, logits in zip(data, together, strict=True):
            flipped = Data(x=each.x.flip(0), pos=each.pos.flip(0), extent=(28, 28))
            torch.testing.assert_close(model(flipped)[0], logits, rtol=0, atol=1e-10)


def test_both_position_conventions_name_the_same_pixels():
    model = small()
    image = pictures(20, 13, batch=1)[0]
    hierarchies = [
        model.hierarchy(points_of(image, position, extent=(20, 13)))
        for position in ("published", "pixel")
    ]
    for a, b in zip(*(h.stages for h in hierarchies), strict=True):
        assert torch.equal(a.anchors.grouping, b.anchors.grouping)
        assert torch.equal(a.clusters.regions.group, b.clusters.regions.group)


@pytest.mark.parametrize("centers", [2, 5, 7])
def test_pyramids(centers):
    model = create_model("coc_micro", features_only=True, centers=centers, out_indices=(0, -1))
    model.eval()
    with torch.no_grad():
        first, last = model(torch.randn(2, 3, 28, 20))
    assert first.shape == (2, 32, 14, 10)
    assert last.shape == (2, 128, 4, 3)
    assert [info["reduction"] for info in model.feature_info] == [2, 2, 4, 4, 8]
    with pytest.raises(ValueError, match="features_only"):
        create_model("coc_micro", out_indices=(0,))
    with pytest.raises(IndexError, match="choose 0 to 4"):
        create_model("coc_micro", features_only=True, out_indices=(5,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pyramid_comes_in_the_order_it_is_asked_for(dtype):
    model = small(dtype, features_only=True, out_indices=(2, 0))
    straight = small(dtype, features_only=True, out_indices=(0, 2))
    straight.load_state_dict(model.state_dict())
    images = pictures(28, 20).to(dtype)
    inputs = [images] + [
        Batch.from_data_list([points_of(image, **{name: (28, 20)}) for image in images])
        for name in ("grid", "extent")
    ]
    for data in inputs:
        with torch.no_grad():
            found, expected = (
                [each if data is images else each.x for each in network(data)]
                for network in (model, straight)
            )
        channels = [model.feature_info[s]["num_chs"] for s in model.out_indices]
        assert [each.size(1) for each in found] == channels == [16, 8]
        for one, other in zip(found, reversed(expected), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("chosen", [(0, 0), (4, -1), ()])
def test_every_stage_of_a_pyramid_comes_once(chosen):
    with pytest.raises(ValueError, match=r"out_indices must name stages, each once, found \("):
        create_model("coc_micro", features_only=True, out_indices=chosen)


def test_an_extent_may_be_a_tensor():
    model = small()
    points = points_of(pictures(8, 8, batch=1)[0])
    expected = model(Data(x=points.x, pos=points.pos, extent=(8, 8)))
    for extent in (torch.tensor([[8, 8]]), torch.tensor([8, 8])):
        assert torch.equal(model(Data(x=points.x, pos=points.pos, extent=extent)), expected)
    anchors = [
        model.hierarchy(Data(pos=points.pos, **size)).stages[0].anchors
        for size in ({"grid": torch.tensor([[8, 8]])}, {"extent": (8, 8)})
    ]
    assert torch.equal(anchors[0].grouping, anchors[1].grouping)


def test_no_picture_at_all():
    model = small()
    for call in (model, model.clusters):
        with pytest.raises(ValueError, match=r"none of them 0, found \[0, 3, 28, 28\]"):
            call(torch.zeros(0, 3, 28, 28, dtype=torch.float64))


def test_one_contract(tmp_path):
    assert {"coc_tiny", "coc_base_dim96", "coc_medium_feat7"} <= set(list_models())
    model = small(torch.float32)
    images = pictures(28, 28).float()
    with torch.no_grad():
        features = model.forward_features(images)
        assert features.shape == (2, 16, 4, 4)
        assert torch.equal(model.forward_head(features), model(images))
        assert model.forward_head(features, pre_logits=True).shape == (2, 16)
        save_model(tmp_path / "net", model)
        loaded, _ = load_model(tmp_path / "net")
        assert torch.equal(loaded(images), model(images))
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    model.reset_classifier(0)
    assert model(images).shape == (2, 16)


def test_every_parameter_learns():
    model = small().train()
    model(pictures(28, 28)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_half_precision():
    model = small(torch.float32).train()
    images = pictures(28, 28).float()
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    torch.testing.assert_close(logits.float(), expected, rtol=0.2, atol=0.2)
    logits.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_stochastic_depth_is_drawn_for_each_picture():
    model = small(drop_path=0.5)
    with torch.no_grad():
        for stage in model.stages[:-1]:
            for block in stage:
                block.drop_path.p = 0.0
    # Of the last block alone, whose two branches are each left out or doubled.
    block = model.stages[-1][-1]
    assert block.drop_path.p == 0.5
    images = pictures(28, 28, batch=1)
    many = images.expand(32, -1, -1, -1)
    loose = Batch.from_data_list([points_of(images[0], extent=(28, 28))] * 32)
    for data in (many, loose):
        torch.manual_seed(0)
        with torch.no_grad():
            logits = model.train()(data)
            possible = []
            for draws in itertools.product([0.0, 2.0], repeat=2):
                left = list(draws)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        block.drop_path,
                        "draw",
                        lambda n, x, left=left: x.new_full([n], left.pop(0)),
                    )
                    possible.append(model(data)[0])
                assert not left
        # Nothing between: no picture keeps some of its points. And not one draw for all pictures.
        near = (logits[:, None] - torch.stack(possible)).abs().amax(dim=2) < 1e-9  # [32, 4]
        assert near.sum(dim=1).tolist() == [1] * 32
        assert near.any(dim=0).all()


def test_clusters_of_every_pixel():
    model = small(fold=(3, 2, 2))
    images = pictures(19, 22)
    batch = Batch.from_data_list([points_of(image, extent=(19, 22)) for image in images])
    for stage, block in [(0, 0), (1, 1), (-1, -1)]:
        found = model.clusters(images, stage, block)
        assert found.index.shape[0] == found.similarity.shape[0] == 2 * 19 * 22
        m = model.plans[stage].centers ** 2
        assert torch.equal(found.index // m, found.region[:, None].expand_as(found.index))
        lattice = Batch.from_data_list([points_of(image, grid=(19, 22)) for image in images])
        same = model.clusters(lattice, stage, block)
        for a, b in zip(found, same, strict=True):
            torch.testing.assert_close(a, b)
        loose = model.clusters(batch, stage, block)
        assert loose.similarity.shape == found.similarity.shape
    with pytest.raises(IndexError, match="block of stage 1"):
        model.clusters(images, 1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (19, 20)}, "hold 380 points, found 418"),
        ({"grid": (22, 19)}, "do not lie row by row"),
        ({"grid": None}, "need `grid`"),
        ({"x": torch.zeros(418, 2, dtype=torch.float64)}, r"x of shape \[N, 3\]"),
        ({"pos": torch.zeros(418, 3, dtype=torch.float64)}, r"pos of shape \[418, 2\]"),
        ({"grid": "wide"}, r"must be \(H, W\)"),
        ({"grid": (0, 418)}, "positive"),
    ],
)
def test_points_that_do_not_fit(change, message):
    data = points_of(pictures(19, 22)[0], grid=(19, 22))
    for key, value in change.items():
        data[key] = value
    with pytest.raises(ValueError, match=message):
        small()(data)


def test_pictures_that_do_not_fit():
    model = small()
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        model(torch.zeros(3, 28, 28, dtype=torch.float64))
    with pytest.raises(TypeError, match="floating"):
        model(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float32, the network torch.float64"):
        model(torch.zeros(1, 3, 28, 28))
    with pytest.raises(TypeError, match="found list"):
        model([1])
    outside = Data(x=torch.zeros(1, 3).double(), pos=torch.full((1, 2), 0.7).double())
    outside.extent = (28, 28)
    with pytest.raises(ValueError, match=r"between -0.5 and 0.5"):
        model(outside)


def test_trains_after_it_was_used_in_inference_mode():
    model = create_model("coc_micro", num_classes=3, in_channels=1)
    images = torch.rand(2, 1, 22, 26)  # a size that nothing else has asked for
    with torch.inference_mode():
        model.eval()(images)
    model.train()(images).sum().backward()
    assert model.head.weight.grad.abs().sum() > 0


def test_starts_as_the_published_networks_do():
    torch.manual_seed(0)
    model = create_model("coc_tiny")
    for linear in (model.stages[0][0].mlp[0], model.stages[3][1].mlp[3], model.head):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05) and not bool(
            linear.bias.any()
        )
    # Convolutions there, with torch's own start: even in +-1 / sqrt(inputs).
    cluster = model.stages[1][0].cluster
    for linear in (model.reducers[0].linear, model.reducers[3].linear, cluster.fv, cluster.proj):
        bound = linear.in_features**-0.5
        assert 0.9 * bound < linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert bool(linear.bias.any())


ODD = [(375, 41), (31, 30), (33, 29), (5, 3), (1, 1)]


@pytest.mark.parametrize("name", ["coc_micro", "coc_tiny", "coc_tiny2", "coc_tiny_plain"])
@pytest.mark.parametrize("size", ODD, ids=str)
def test_every_pixel_reaches_the_network(name, size):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).double().eval()
    image = torch.rand(1, 3, *size, dtype=torch.float64, requires_grad=True)
    answer = model(image)
    (slope,) = torch.autograd.grad((answer * torch.randn(5, dtype=torch.float64)).sum(), image)
    assert (slope.abs().sum(dim=(0, 1)) > 0).all()
    # The same for its points, as a lattice and one by one.
    with torch.no_grad():
        points = points_of(image[0].detach(), grid=size)
        torch.testing.assert_close(model(points), answer.detach(), rtol=0, atol=1e-9)
        loose = Data(x=points.x, pos=points.pos, extent=size)
        torch.testing.assert_close(model(loose), answer.detach(), rtol=0, atol=1e-9)
        found = model.clusters(image.detach(), stage=0)
        assert found.index.shape[0] == size[0] * size[1]


def test_rows_of_a_picture_that_no_stride_divides():
    model = create_model("coc_tiny", features_only=True)
    maps = model(torch.rand(1, 3, 375, 500))
    assert [tuple(each.shape[2:]) for each in maps] == [(94, 125), (47, 63), (24, 32), (12, 16)]
    maps = model(torch.rand(1, 3, 384, 512))
    assert [tuple(each.shape[2:]) for each in maps] == [(96, 128), (48, 64), (24, 32), (12, 16)]
