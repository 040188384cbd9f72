"""One contract for all networks, as timm's names have it."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.geometry import lattice_positions
from pointcluster.models import Features, create_model

SMALL_MLP = {
    "embedding": 6, "channels": (8, 12), "blocks": (1, 2), "depths": (1, 1), "ratios": (0.5, 0.5),
    "k": 5, "head_hidden": (9,),
}  # fmt: skip
NETWORKS = {"coc_micro": {}, "point_coc_tiny": {}, "point_coc_small": {}, "pointmlp_coc": SMALL_MLP}


def make(name, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **(NETWORKS[name] | options)).eval()


def inputs(name):
    """What the network takes, in all forms."""
    seed = torch.Generator().manual_seed(0)
    if not name.startswith("coc"):
        clouds = [Data(pos=torch.randn(n, 3, generator=seed)) for n in (90, 40)]
        return [Batch.from_data_list(clouds), clouds[0]]
    images = torch.rand(2, 3, 20, 28, generator=seed)
    points = [(image.flatten(1).t(), lattice_positions((20, 28))) for image in images]
    return [images] + [
        Batch.from_data_list([Data(x=x, pos=pos, **{size: (20, 28)}) for x, pos in points])
        for size in ("grid", "extent")
    ]


def values(features):
    return features.x if isinstance(features, Features) else features


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_and_what_the_head_takes(name):
    model = make(name)
    infos = model.feature_info
    for data in inputs(name):
        with torch.no_grad():
            last, stages = model.forward_intermediates(data)
            assert torch.equal(values(last), values(model.forward_features(data)))
            assert torch.equal(model.forward_head(last), model(data))
            assert [values(x).size(1) for x in stages] == [info["num_chs"] for info in infos]
            assert model.forward_head(last, pre_logits=True).size(1) == model.head_hidden_size
            some = model.forward_intermediates(
                data, [-1, 0], norm=True, stop_early=True, intermediates_only=True
            )
            assert torch.equal(values(some[0]), values(last))
            assert torch.equal(values(some[1]), values(stages[0]))
            (first,) = model.forward_intermediates(data, [0], False, True, "NCHW", True)
            assert torch.equal(values(first), values(stages[0]))
            two = model.forward_intermediates(data, 2, intermediates_only=True)
            for a, b in zip(two, stages[-2:], strict=True):
                assert torch.equal(values(a), values(b))
        if isinstance(last, Features):
            for x in stages:
                assert x.pos.shape[0] == x.batch.shape[0] == x.x.shape[0]
                assert x.batch_size == len(model(data))
    with pytest.raises(IndexError, match="no stage number 9"):
        model.forward_intermediates(data, [9])
    with pytest.raises(IndexError, match="take 1 to"):
        model.forward_intermediates(data, 9)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_only(name):
    model = make(name, features_only=True, out_indices=(-1, 0))
    assert model.out_indices == (len(model.feature_info) - 1, 0)
    whole = make(name)
    whole.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for data in inputs(name):
            found = model(data)
            assert [values(x).size(1) for x in found] == [
                model.feature_info[s]["num_chs"] for s in model.out_indices
            ]
            if not name.startswith("coc"):  # which have a norm for every stage
                expected = whole.forward_intermediates(data, model.out_indices)[1]
                assert all(torch.equal(a.x, b.x) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match="no classifier"):
        model.reset_classifier(3)
    with pytest.raises(ValueError, match="set features_only=True"):
        make(name, out_indices=(0,))
    with pytest.raises(ValueError, match="each once"):
        make(name, features_only=True, out_indices=(0, 0))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_hierarchy_worked_out_before(name):
    model = make(name)
    data = inputs(name)[-1]
    hierarchy = model.hierarchy(data)
    with torch.no_grad():
        assert torch.equal(model(data, hierarchy), model(data))
        stages = model.forward_intermediates(data, hierarchy=hierarchy, intermediates_only=True)
    for x, stage in zip(stages, hierarchy.stages, strict=True):
        assert torch.equal(x.pos, stage.anchors.pos)
        assert torch.equal(x.batch, stage.anchors.batch)
        assert x.cloud_size == stage.anchors.cloud_size


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_checkpointing_changes_no_step(name):
    options = {} if name == "pointmlp_coc" else {"drop_path": 0.5, "layer_scale": 0.5}
    found = []
    for enable in (False, True):
        model = make(name, **options).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        model(inputs(name)[0]).square().sum().backward()
        found.append([p.grad for p in model.parameters()] + list(model.buffers()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_classifiers(name):
    model, data = make(name), inputs(name)[0]
    assert model.get_classifier() is model.head
    with torch.no_grad():
        before = model.forward_head(model.forward_features(data), pre_logits=True)
        model.reset_classifier(7)
        assert model(data).shape == (2, 7) and model.config["num_classes"] == 7
        model.reset_classifier(0)
        assert torch.equal(model(data), before)
    assert len(model.heads) == len(model.num_blocks) == len(model.feature_info)
