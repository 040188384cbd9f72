from __future__ import annotations

import json
import re

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.geometry import Hierarchy, knn
from pointcluster.models import create_model, list_models, load_model, save_model
from tests.models.published import DATA, ENTRIES, checkpoint, clouds

NAME = "pointmlp_coc"
SMALL = {
    "embedding": 6,
    "channels": (8, 12),
    "blocks": (1, 2),
    "depths": (2, 1),
    "ratios": (0.5, 0.5),
    "k": 7,
    "head_hidden": (9, 10),
}


def small(dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = create_model(NAME, **({"num_classes": 5} | SMALL | options)).to(dtype)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand_like(value)
    return model.eval()


def several(sizes, channels=0, dtype=torch.float64):
    seed = torch.Generator().manual_seed(0)
    out = []
    for n in sizes:
        out.append(Data(pos=torch.randn(n, 3, generator=seed, dtype=dtype)))
        if channels:
            out[-1].x = torch.randn(n, channels, generator=seed, dtype=dtype)
    return out


@pytest.fixture(scope="module")
def published():
    model = create_model(NAME, num_classes=15).double().eval()
    model.load_published(checkpoint(NAME))
    return model


def test_the_published_answers(published):
    recorded = json.loads((DATA / "pointmlp_coc_15x1024.json").read_text())
    assert sum(p.numel() for p in published.parameters()) == recorded["params"]
    expected = torch.tensor(recorded["logits"], dtype=torch.float64)
    with torch.no_grad():
        logits = published(Batch.from_data_list([Data(pos=pos) for pos in clouds(1024)]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_entries_land_where_they_belong(published):
    entries, own = checkpoint(NAME), published.state_dict()
    assert len(own) == len(entries) - 16  # weights and biases of f and v are one
    f, v = own["encoders.1.clusters.1.fv.weight"].chunk(2)
    assert torch.equal(f, entries["pre_blocks_list.1.operation.2.fc1.weight"])
    assert torch.equal(v, entries["pre_blocks_list.1.operation.2.fc_v.weight"])
    key = "pos_blocks_list.3.operation.1.net2.1.running_var"
    assert torch.equal(own["stages.3.1.norm2.running_var"], entries[key])
    assert torch.equal(own["neck.4.weight"], entries["classifier.4.weight"])
    assert torch.equal(own["head.bias"], entries["classifier.8.bias"])


@pytest.mark.parametrize("wrap", ["net", "state_dict", "model"])
def test_wrapped_and_prefixed_checkpoints(wrap, published):
    model = create_model(NAME, num_classes=15).double()
    entries = {f"module.{key}": value for key, value in checkpoint(NAME).items()}
    model.load_published({wrap: entries, "epoch": 3})
    for key, value in model.state_dict().items():
        assert torch.equal(value, published.state_dict()[key]), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier.8.bias": None}, "head.bias is missing"),
        ({"pre_blocks_list.0.operation.0.fc1.bias": None}, "fv.bias is missing"),
        ({"extra.weight": torch.zeros(1)}, "extra.weight is not known"),
        ({"pre_blocks_list.0.operation.1.net3.0.weight": torch.zeros(1)}, "is not known"),
        ({"pos_blocks_list.7.operation.1.net2.0.weight": torch.zeros(1)}, "does not belong"),
        ({"embedding.net.0.weight": torch.zeros(64, 4, 1)}, r"expected \[64, 3\]"),
        ({"classifier.8.weight": torch.zeros(40, 256)}, "another number of classes"),
    ],
)
def test_checkpoints_that_do_not_fit_change_nothing(change, message):
    model = create_model(NAME, num_classes=15)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    entries = {key: torch.zeros(shape) for key, shape in ENTRIES[NAME].items()} | change
    entries = {key: value for key, value in entries.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        model.load_published(entries)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("channels", [0, 2])
def test_one_contract(tmp_path, channels):
    assert NAME in list_models()
    model = small(in_channels=channels)
    batch = Batch.from_data_list(several([60, 33], channels))
    hierarchy = model.hierarchy(batch)
    with torch.no_grad():
        features = model.forward_features(batch)
        assert features.x.shape == (len(features.pos), model.feature_info[-1]["num_chs"])
        logits = model(batch)
        assert logits.shape == (2, 5)
        assert torch.equal(model.forward_head(features), logits)
        assert torch.equal(model(batch, hierarchy), logits)
        save_model(tmp_path / "net", model)
        loaded, _ = load_model(tmp_path / "net", name=NAME)
        assert torch.equal(loaded(batch), logits)
        before = model.forward_head(features, pre_logits=True)
        assert before.shape == (2, 10)
        model.reset_classifier(3)
        assert model(batch).shape == (2, 3) and model.config["num_classes"] == 3
        model.reset_classifier(0)
        assert torch.equal(model(batch), before)
    assert [info["reduction"] for info in model.feature_info] == [2, 4]


@pytest.mark.parametrize("start", ["first", "far"])
def test_joining_and_permuting_clouds_changes_nothing(start):
    model = small(start=start)
    parts = several([50, 3, 27, 1])
    with torch.no_grad():
        logits = model(Batch.from_data_list(parts))
        seed = torch.Generator().manual_seed(1)
        for row, data in zip(logits, parts, strict=True):
            order = torch.randperm(len(data.pos), generator=seed)
            if start == "first":  # sampling begins at the first point, wherever the others are
                order = torch.cat([order.new_zeros(1), order[order > 0]])
            found = model(Data(pos=data.pos[order]))[0]
            torch.testing.assert_close(found, row, rtol=0, atol=1e-9)
        if start == "first":
            flipped = model(Data(pos=parts[0].pos.flip(0)))[0]
            assert not torch.allclose(flipped, logits[0], rtol=0, atol=1e-6)


def test_geometry_moves_with_the_points():
    model, batch = small(start="far"), Batch.from_data_list(several([50, 27]))
    moved = batch.clone()
    moved.pos = batch.pos + torch.tensor([4.0, -1.0, 2.0], dtype=torch.float64)
    for one, other in zip(
        model.hierarchy(batch).stages, model.hierarchy(moved).stages, strict=True
    ):
        assert torch.equal(one.anchors.anchor, other.anchors.anchor)
        assert torch.equal(one.anchors.grouping, other.anchors.grouping)


def test_anchors_begin_at_the_first_point_and_are_nested():
    model, batch = small(), Batch.from_data_list(several([50, 27]))
    for training in (True, False):
        first, second = (s.anchors for s in model.train(training).hierarchy(batch).stages)
        assert first.anchor[[0, 25]].tolist() == [0, 50]
        assert second.anchor.tolist() == [*range(13), *range(25, 32)]


def test_empty_clouds():
    model = small()
    full = several([20, 30])
    with torch.no_grad():
        found = model(Batch.from_data_list([full[0], *several([0]), full[1], *several([0])]))
        torch.testing.assert_close(found[[0, 2]], model(Batch.from_data_list(full)))
    assert torch.equal(found[1], found[3]) and found.isfinite().all()


@pytest.mark.parametrize("sizes", [[30, 20], [1], [2, 1]])
def test_every_parameter_learns(sizes):
    model = small(dropout=0.0).train()
    model(Batch.from_data_list(several(sizes))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert sizes != [30, 20] or parameter.grad.abs().sum() > 0, name


def test_clusters_reach_every_point_of_the_input():
    model = small().train()
    parts = several([50, 27])
    batch = Batch.from_data_list(parts)
    hierarchy = model.hierarchy(batch)
    for stage, blocks in ((0, 1), (1, 2)):
        anchors = hierarchy.stages[stage].anchors
        for block in range(blocks):
            found = model.clusters(batch, stage, block)
            again = model.clusters(batch, stage - 2, block - blocks, hierarchy=hierarchy)
            assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
            assert found.index.shape == found.similarity.shape == (77, 1)
            assert torch.equal(found.region, found.index[:, 0])
            assert torch.equal(found.center_batch[found.region], batch.batch)
            assert torch.equal(found.center_pos, anchors.pos)
            assert bool(((found.similarity > 0) & (found.similarity < 1)).all())
            alone = model.clusters(parts[1], stage, block)
            own = found.index[50:]
            assert torch.equal(own - own.min() + alone.index.min(), alone.index)
    assert model.training


def test_clusters_are_the_most_similar_groups():
    model, data = small(), several([50])[0]
    anchors = model.hierarchy(data).stages[0].anchors
    s = model.encoders[0].similarities(model.embedding(data.pos), anchors, 0)
    found = model.clusters(data, 0, 0)
    for n in range(50):
        groups, slots = (anchors.grouping == n).nonzero(as_tuple=True)
        if len(groups):
            best = s[groups, slots].argmax()
            assert found.index[n, 0] == groups[best]
            assert found.similarity[n, 0] == s[groups[best], slots[best]]
        else:  # no group holds it
            near = anchors.anchor[knn(anchors.pos, data.pos[n : n + 1], 1)[0, 0]]
            assert found.index[n, 0] == found.index[near, 0]


@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (Data(pos=torch.zeros(4, 2)), 0, "pos of shape [N, 3], found [4, 2]"),
        (Data(pos=torch.zeros(4, 3)), 3, "features x of shape [N, 3], found None"),
        (Data(pos=torch.zeros(4, 3), x=torch.zeros(5, 3)), 3, "x has 5 points, pos 4"),
        (Data(pos=torch.full((4, 3), float("nan"))), 0, "NaN"),
        (Data(pos=torch.zeros(2, 3), batch=torch.tensor([1, 0])), 0, "sorted"),
        (Data(pos=torch.zeros(2, 3, device="meta")), 0, "are on meta, the network on cpu"),
    ],
)
def test_bad_input(data, channels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(torch.float32, in_channels=channels)(data)


def test_other_bad_arguments():
    model, (one, other) = small(), several([20, 30])
    with pytest.raises(TypeError, match="found Tensor"):
        model(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"\[30, 3\], .* for \[20, 3\]"):
        model(other, model.hierarchy(one))
    with pytest.raises(ValueError, match="has 1 stages, the network has 2"):
        first = model.hierarchy(one)
        model(one, first._replace(stages=first.stages[:1]))
    with pytest.raises(ValueError, match="by other plans"):
        model(one, Hierarchy((), 1))
    with pytest.raises(ValueError, match="are not where they were"):
        model(Data(pos=one.pos.flip(0)), model.hierarchy(one))
    with pytest.raises(ValueError, match="there are 2 clouds, .* is of 1"):
        halves = [Data(pos=half) for half in one.pos.split(10)]
        model(Batch.from_data_list(halves), model.hierarchy(one))
    with pytest.raises(IndexError, match="no stage number 2: choose 0 to 1"):
        model.clusters(one, stage=2)
    with pytest.raises(IndexError, match="no block of stage 0 number 1"):
        model.clusters(one, stage=0, block=1)
    with pytest.raises(ValueError, match="'first' or 'far', found 'random'"):
        small(start="random")
    with pytest.raises(ValueError, match="equally many, found 2, 1, 2, 2"):
        small(blocks=(1,))
    with pytest.raises(ValueError, match="equally many, found 0, 0, 0, 0"):
        small(channels=(), blocks=(), depths=(), ratios=())
    with pytest.raises(ValueError, match="each entry of depths must be at least 0, found -1"):
        small(depths=(-1, 1))
    with pytest.raises(ValueError, match="dim must be at least 1, found 0"):
        small(dim=0)
