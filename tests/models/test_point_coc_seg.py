from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model, list_models, load_model, save_model
from pointcluster.transforms import PrecomputeHierarchy

NAMES = list_models(task="segmentation")


def make(name="point_coc_tiny_seg", dtype=torch.float64, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=6, **options).to(dtype).eval()


def clouds(sizes, channels=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    out = []
    for n in sizes:
        data = Data(pos=torch.randn(n, 3, generator=generator, dtype=dtype))
        if channels:
            data.x = torch.randn(n, channels, generator=generator, dtype=dtype)
        out.append(data)
    return out


def test_names():
    assert NAMES == ["point_coc_small_seg", "point_coc_tiny_seg"]
    assert not set(NAMES) & set(list_models()) and set(NAMES) < set(list_models(task=None))
    with pytest.raises(ValueError, match="found .parts."):
        list_models(task="parts")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"place": False}, {"carry": "assign"}])
@pytest.mark.parametrize("channels", [0, 2])
def test_joining_moving_and_permuting_clouds_changes_nothing(name, options, channels):
    if options.get("carry") == "assign" and name != "point_coc_tiny_seg":
        pytest.skip("one size is enough")
    model = make(name, in_channels=channels, **options)
    several = clouds([130, 77, 2, 1], channels)
    logits = model(Batch.from_data_list(several)).split([130, 77, 2, 1])
    generator = torch.Generator().manual_seed(1)
    for rows, data in zip(logits, several, strict=True):
        assert rows.shape == (len(data.pos), 6) and rows.isfinite().all()
        order = torch.randperm(len(data.pos), generator=generator)
        other = Data(pos=data.pos[order] + torch.tensor([1.0, -9.0, 4.0], dtype=torch.float64))
        if channels:
            other.x = data.x[order]
        torch.testing.assert_close(model(other), rows[order], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_one_contract(name):
    model = make(name, in_channels=3)
    batch = Batch.from_data_list(clouds([150, 60], 3))
    features = model.forward_features(batch)
    assert features.x.shape == (210, model.num_features)
    assert torch.equal(features.pos, batch.pos) and torch.equal(features.batch, batch.batch)
    logits = model(batch)
    assert torch.equal(model.forward_head(features), logits)
    assert torch.equal(model(batch, model.hierarchy(batch)), logits)
    before = model.forward_head(features, pre_logits=True)
    model.reset_classifier(3)
    assert model(batch).shape == (210, 3)
    model.reset_classifier(0)
    assert torch.equal(model(batch), before)
    clusters = model.clusters(batch, stage=1)
    assert len(clusters.index) == 210


@pytest.mark.parametrize("name", NAMES)
def test_the_loader_may_work_the_geometry_out(name):
    model = make(name, torch.float32)
    items = clouds([140, 90, 5], dtype=torch.float32)
    alone = model(Batch.from_data_list(items))
    transform = PrecomputeHierarchy(model.plans)
    each = Batch.from_data_list([transform(item.clone()) for item in items])
    assert torch.equal(model(each), alone)
    assert torch.equal(model(transform.collate([item.clone() for item in items])), alone)
    encoder = create_model(name.removesuffix("_seg"), num_classes=6)
    with pytest.raises(ValueError, match="worked out by other plans"):
        encoder(each)


@pytest.mark.parametrize("name", NAMES)
def test_features_only_gives_every_level(name):
    model = make(name, features_only=True)
    batch = Batch.from_data_list(clouds([150, 60]))
    levels = model(batch)
    hierarchy = model.hierarchy(batch)
    assert [len(level.x) for level in levels] == [
        210, *(len(stage.anchors.pos) for stage in hierarchy.stages)
    ]  # fmt: skip
    assert len(levels) == len(model.stages) + 1
    assert not hasattr(model, "head")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("carry", ["interpolate", "assign"])
def test_every_parameter_learns(name, carry):
    model = make(name, in_channels=2, carry=carry).train()
    model(Batch.from_data_list(clouds([200, 200], 2))).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not still


def test_float32_agrees_with_float64_and_half_precision_trains():
    batch = Batch.from_data_list(clouds([128, 128], dtype=torch.float32))
    double = batch.clone()
    double.pos = double.pos.double()
    single = make(dtype=torch.float32)
    torch.testing.assert_close(single(batch).double(), make()(double), rtol=1e-3, atol=1e-3)
    model = make(dtype=torch.float32).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch).float().square().sum()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_empty_clouds_and_coincident_points():
    model = make()
    full = clouds([60, 90])
    logits = model(Batch.from_data_list(full))
    holes = Batch.from_data_list([full[0], *clouds([0]), full[1], *clouds([0])])
    torch.testing.assert_close(model(holes), logits, rtol=0, atol=1e-10)
    same = Data(pos=torch.zeros(40, 3).double())
    found = model(same)
    assert found.isfinite().all() and torch.allclose(found, found[:1].expand_as(found))


def test_it_is_saved_and_read_back(tmp_path):
    model = make(dtype=torch.float32, in_channels=1, place=False)
    save_model(tmp_path / "model", model, {"classes": list("abcdef")})
    again, noted = load_model(tmp_path / "model")
    batch = Batch.from_data_list(clouds([80], 1, torch.float32))
    assert torch.equal(again(batch), model(batch)) and noted["classes"] == list("abcdef")
    assert again.config["place"] is False


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="needs 3 entries of decoder and 2 of decoder_depths"):
        make(decoder=(8, 8))
    with pytest.raises(ValueError, match="features x of shape"):
        make(in_channels=2)(clouds([20])[0])
    with pytest.raises(TypeError):
        make(anything=1)


def test_checkpointing_reaches_the_decoder(monkeypatch):
    """What goes into its blocks is kept alone, with the same gradients."""
    network = create_model("point_coc_tiny_seg", num_classes=3).double().eval()
    data, called, gradients = Batch.from_data_list(clouds(sizes=(90, 60))), [], []
    call = type(network).call
    monkeypatch.setattr(
        type(network),
        "call",
        lambda self, part, *given: called.append(part) or call(self, part, *given),
    )
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(data).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    blocks = [block for level in network.decoder for block in level]
    assert blocks and all(block in called for block in blocks)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
