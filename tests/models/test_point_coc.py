from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pointcluster.geometry import knn
from pointcluster.models import create_model, list_models
from pointcluster.nn import BatchNorm


def make(name="point_coc_tiny", dtype=torch.float64, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=7, **options).to(dtype).eval()


def clouds(sizes, channels=0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = []
    for n in sizes:
        data = Data(pos=torch.randn(n, 3, generator=generator, dtype=dtype))
        if channels:
            data.x = torch.randn(n, channels, generator=generator, dtype=dtype)
        out.append(data)
    return out


@pytest.mark.parametrize(
    ("name", "gflop", "parameters"),
    [("point_coc_small", 1.64, 1.5e6), ("point_coc_tiny", 0.4, 1.5e6)],
)
def test_budgets_for_a_cloud_of_1024_points(name, gflop, parameters):
    model = create_model(name, num_classes=40).eval()
    assert sum(p.numel() for p in model.parameters()) <= parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clouds([1024], dtype=torch.float32)[0])
    assert 0 < counter.get_total_flops() / 1e9 <= gflop


@pytest.mark.parametrize("name", list_models("point_*"))
def test_one_contract_for_every_network(name):
    model = make(name)
    batch = Batch.from_data_list(clouds([300, 150]))
    features = model.forward_features(batch)
    assert features.x.shape == (len(features.pos), model.feature_info[-1]["num_chs"])
    logits = model(batch)
    assert logits.shape == (2, 7)
    assert torch.equal(model.forward_head(features), logits)
    assert torch.equal(model(batch, model.hierarchy(batch)), logits)
    before = model.forward_head(features, pre_logits=True)
    model.reset_classifier(3)
    assert model(batch).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(batch), before)


@pytest.mark.parametrize("name", list_models("point_*"))
@pytest.mark.parametrize("channels", [0, 3])
def test_joining_moving_and_permuting_clouds_changes_nothing(name, channels):
    model = make(name, in_channels=channels)
    several = clouds([130, 77, 300, 1, 2], channels)
    logits = model(Batch.from_data_list(several))
    generator = torch.Generator().manual_seed(1)
    for row, data in zip(logits, several, strict=True):
        order = torch.randperm(len(data.pos), generator=generator)
        other = Data(pos=data.pos[order] + torch.tensor([1.0, -9.0, 4.0], dtype=torch.float64))
        if channels:
            other.x = data.x[order]
        torch.testing.assert_close(model(other)[0], row, rtol=0, atol=1e-8)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_pre_norm_evens_out_what_the_stage_before_gives(pre_norm):
    model = make(pre_norm=pre_norm).train()
    assert sum(isinstance(each, BatchNorm) for each in model.pre_norms) == 2 * pre_norm
    gathered = []
    for reducer in model.reducers[1:]:
        reducer.register_forward_pre_hook(lambda _, args: gathered.append(args[0].detach()))
    model(Batch.from_data_list(clouds([200, 100])))
    assert len(gathered) == 2
    for x in gathered:
        mean, var = x.mean(dim=0), x.var(dim=0, unbiased=False)
        assert ((mean.abs() < 1e-6) & ((var - 1).abs() < 0.01)).all() == pre_norm


def test_empty_clouds_in_the_middle_and_at_the_end():
    model = make()
    full = clouds([60, 90])
    logits = model(Batch.from_data_list(full))
    holes = Batch.from_data_list([full[0], *clouds([0]), full[1], *clouds([0])])
    found = model(holes)
    assert found.shape == (4, 7) and torch.isfinite(found).all()
    torch.testing.assert_close(found[[0, 2]], logits, rtol=0, atol=1e-10)
    assert torch.equal(found[1], found[3])


def test_coincident_points_and_a_large_cloud():
    model = make()
    data = clouds([200])[0]
    data.pos[50:] = data.pos[0]
    assert torch.isfinite(model(data)).all()
    assert torch.isfinite(model(Data(pos=torch.zeros(40, 3).double()))).all()
    with torch.no_grad():
        assert torch.isfinite(model(clouds([20_000])[0])).all()


def test_float32_agrees_with_float64_and_half_precision_trains():
    batch = Batch.from_data_list(clouds([128, 128], dtype=torch.float32))
    double = Batch.from_data_list(clouds([128, 128], dtype=torch.float32))
    double.pos = double.pos.double()
    single = make(dtype=torch.float32)
    torch.testing.assert_close(single(batch).double(), make()(double), rtol=1e-3, atol=1e-3)
    for half in (torch.bfloat16, torch.float16):
        model = make(dtype=torch.float32).train()
        with torch.autocast("cpu", half):
            loss = model(batch).float().square().sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", list_models("point_*"))
def test_every_parameter_learns(name):
    model = make(name, in_channels=2).train()
    model(Batch.from_data_list(clouds([256, 256], 2))).square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not still


@pytest.mark.parametrize("name", list_models("point_*"))
def test_clusters_reach_every_point_of_the_input(name):
    model = make(name).train()  # it answers as in evaluation, and stays in training
    several = clouds([200, 90])
    batch = Batch.from_data_list(several)
    for stage, blocks in enumerate(model.stages):
        for block in range(len(blocks)):
            found = model.clusters(batch, stage=stage, block=block)
            heads = blocks[block].cluster.heads
            assert found.index.shape == found.similarity.shape == (290, heads)
            assert torch.equal(
                found.center_batch[found.index], batch.batch[:, None].expand(-1, heads)
            )
            m = blocks[block].cluster.num_centers
            assert torch.equal(found.index // m, found.region[:, None].expand(-1, heads))
    assert model.training
    last = model.clusters(batch)
    again = model.clusters(batch, stage=len(model.stages) - 1, block=len(model.stages[-1]) - 1)
    assert torch.equal(last.index, again.index)
    alone = model.clusters(several[1], stage=0)
    whole = model.clusters(batch, stage=0)
    own = whole.index[200:]
    assert torch.equal(own - (own.min() - alone.index.min()), alone.index)


def test_clusters_are_those_of_the_block_and_of_the_nearest_anchor():
    model = make()
    data = clouds([150])[0]
    anchors, geometry = model.hierarchy(data).stages[0]
    x = model.reducers[0](data.pos - data.pos.mean(dim=0), anchors)[0]
    _, direct = model.stages[0][0](model.norms[0](x), geometry, return_clusters=True)
    found = model.clusters(data, stage=0, block=0)
    nearest = knn(anchors.pos, data.pos, 1)[:, 0]
    assert torch.equal(found.index, direct.index[nearest])
    assert torch.equal(found.index[anchors.anchor], direct.index)
    assert torch.equal(found.center_pos, anchors.pos[direct.center])


@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (Data(pos=torch.zeros(4, 2)), 0, "pos of shape [N, 3], found [4, 2]"),
        (Data(pos=torch.zeros(4, 3)), 3, "features x of shape [N, 3], found None"),
        (Data(pos=torch.zeros(4, 3), x=torch.zeros(4, 2)), 3, "found [4, 2]"),
        (Data(pos=torch.zeros(4, 3), x=torch.zeros(5, 3)), 3, "x has 5 points, pos 4"),
        (Data(pos=torch.full((4, 3), float("nan"))), 0, "NaN"),
        (Data(pos=torch.zeros(2, 3), batch=torch.tensor([1, 0])), 0, "sorted"),
    ],
)
def test_bad_input(data, channels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(dtype=torch.float32, in_channels=channels)(data)


def test_a_tensor_is_no_cloud_and_numbers_of_classes_count():
    with pytest.raises(TypeError, match="found Tensor"):
        make()(torch.zeros(4, 3))
    for options in ({"num_classes": -1}, {"in_channels": -1}):
        with pytest.raises(ValueError, match="at least 0"):
            create_model("point_coc_tiny", **options)
    model = create_model("point_coc_tiny", num_classes=3)
    with pytest.raises(ValueError, match="the clouds are on meta, the network on cpu"):
        model(Data(pos=torch.zeros(4, 3, device="meta")))
    model.reset_classifier(9)
    assert create_model(**model.config).head.out_features == 9
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_one_tiny_cloud_can_be_trained_on(n):
    model = make().train()
    model(clouds([n])[0]).sum().backward()


def test_no_such_stage_or_block():
    model, data = make(), clouds([40])[0]
    with pytest.raises(IndexError, match="no stage number 9: choose 0 to 2"):
        model.clusters(data, stage=9)
    with pytest.raises(IndexError, match="no block of stage 0 number -2"):
        model.clusters(data, stage=0, block=-2)


def test_sizes_must_fit():
    with pytest.raises(ValueError, match="equally many, found 3, 2, 3, 3, 3"):
        make(depths=(1, 1))
    with pytest.raises(ValueError, match="each entry of depths must be at least 0, found -1"):
        make(depths=(1, -1, 1))
    with pytest.raises(ValueError, match="dim must be at least 1, found 0"):
        make(dim=0)


@pytest.mark.parametrize(
    "options", [{"reducer": "concat"}, {"relative": False}, {"depths": (0,) * 3}]
)
def test_variants_of_the_design(options):
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=4, **options).double().eval()
    pos = torch.randn(200, 3, dtype=torch.float64)
    y = model(Data(pos=pos))
    torch.testing.assert_close(model(Data(pos=pos.flip(0) + 3)), y, rtol=0, atol=1e-9)
    if not options.get("relative", True):  # only the first stage's features tell positions then
        assert all(reducer.place is None for reducer in model.reducers)
    with pytest.raises(ValueError, match="mode must be"):
        create_model("point_coc_tiny", reducer="mean")


def test_half_and_far_off_positions_are_seen_as_precisely_as_they_are():
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=3).eval()
    # Steps of 1 / 4096: a move by 1,024 changes no digit of the differences.
    pos = torch.randint(0, 4096, (20_000, 3)).float() / 4096
    seen = model.points(Data(pos=pos), 1).x
    exact = (pos.double() - pos.double().mean(dim=0)).float()
    torch.testing.assert_close(seen, exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.points(Data(pos=pos + 1024), 1).x, exact, rtol=0, atol=1e-5)
    half = (torch.rand(700, 3) * 1000).half()
    with torch.no_grad():
        assert torch.equal(model(Data(pos=half)), model(Data(pos=half.float())))


def test_a_hierarchy_of_others_is_refused():
    model = create_model("point_coc_tiny", num_classes=3).eval()
    one, other = Data(pos=torch.rand(100, 3)), Data(pos=torch.rand(100, 3))
    both = Batch.from_data_list([one, other])
    of_one = model.hierarchy(one)
    assert torch.equal(model(one, of_one), model(one))
    with pytest.raises(ValueError, match=r"\[200, 3\], .* for \[100, 3\]"):
        model(both, of_one)
    with pytest.raises(ValueError, match=r"\[100, 3\], .* for \[200, 3\]"):
        model(one, model.hierarchy(both))
    with pytest.raises(ValueError, match="are not where they were"):
        model(other, of_one)
    with pytest.raises(ValueError, match="has 1 stages, the network has 3"):
        model(one, of_one._replace(stages=of_one.stages[:1]))
    with pytest.raises(TypeError, match="found int"):
        model(one, [1])


@pytest.mark.parametrize("options", [{"heads": (0, 1, 1)}, {"channels": (48, 0, 8)}])
def test_sizes_of_nothing(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        create_model("point_coc_tiny", **options)
