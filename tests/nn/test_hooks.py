"""Parts of a network that were replaced, wrapped or watched are called."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model
from pointcluster.nn import ContextClusterBlock, PointReducer

NETWORKS = ["coc_micro", "point_coc_tiny", "pointmlp_coc"]
SMALL = {"embedding": 8, "channels": (16, 32), "blocks": (2, 1), "depths": (1, 1),
         "ratios": (0.5, 0.5), "head_hidden": (16,)}  # fmt: skip


class More(nn.Module):
    """An adapter: a frozen map, and a small one beside it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.more = nn.Linear(base.in_features, base.out_features, bias=False)
        nn.init.normal_(self.more.weight, std=0.5)
        self.weight, self.bias = base.weight, base.bias
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x):
        return self.base(x) + self.more(x)


def case(name, dtype=torch.float32):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **(SMALL if name == "pointmlp_coc" else {})).to(dtype)
    for module in model.modules():  # the published start leaves the branches out, nearly
        for key in ("scale1", "scale2"):
            if getattr(module, key, None) is not None:
                nn.init.constant_(getattr(module, key), 0.5)
    seed = torch.Generator().manual_seed(0)
    if name.startswith("coc"):
        return model, torch.rand(2, 3, 28, 28, generator=seed).to(dtype)
    clouds = [Data(pos=torch.rand(n, 3, generator=seed).to(dtype)) for n in (90, 70)]
    return model, Batch.from_data_list(clouds)


def linears(model):
    return [n for n, part in model.named_modules() if type(part) is nn.Linear]


def parent_of(model, name):
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_hook_fires(name, training):
    model, given = case(name)
    model.train(training)
    expected = model.eval()(given)
    model.train(training)
    forward, pre, back = set(), set(), set()
    names = {part: key for key, part in model.named_modules()}
    clouds = not isinstance(given, torch.Tensor)
    handles = []
    for part in names:
        handles.append(part.register_forward_hook(lambda part, *_: forward.add(names[part])))
        handles.append(part.register_forward_pre_hook(lambda part, *_: pre.add(names[part])))
    y = model(given)
    containers = {
        k for part, k in names.items() if isinstance(part, (nn.ModuleList, nn.ModuleDict))
    }
    silent = {k for part, k in names.items() if type(part).__name__ == "DropPath"}
    assert forward == pre == set(names.values()) - containers - silent
    if not training:
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    for handle in handles:
        handle.remove()
    for part, key in names.items():
        if type(part) in (nn.Linear, ContextClusterBlock) or key.endswith(("cluster", "mlp")):
            part.register_full_backward_hook(lambda part, *_: back.add(names[part]))
    if clouds:
        given.pos.requires_grad_()  # so that the first layer, too, has a gradient to pass on
    else:
        given.requires_grad_()
    model(given).sum().backward()
    watched = {k for part, k in names.items() if part._backward_hooks}
    assert watched and back == watched


@pytest.mark.parametrize("name", NETWORKS)
def test_global_hooks_see_every_part(name):
    model, given = case(name)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda part, *_: seen.append(part))
    try:
        model.eval()(given)
    finally:
        handle.remove()
    expected = [part for part in model.modules() if type(part) is nn.Linear]
    assert {id(part) for part in expected} <= {id(part) for part in seen}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_adapter_changes_the_answer_and_learns(name):
    model, given = case(name, torch.float64)
    before = model.eval()(given)
    for key in linears(model):
        other = copy.deepcopy(model)
        parent, last = parent_of(other, key)
        adapter = More(getattr(parent, last)).double()
        setattr(parent, last, adapter)
        y = other(given)
        assert (y - before).abs().max() > 1e-9, key
        y.square().sum().backward()
        assert adapter.more.weight.grad.abs().max() > 0, key
        # The same as the sum of both maps, as one plain layer.
        plain = copy.deepcopy(model)
        with torch.no_grad():
            plain.get_submodule(key).weight += adapter.more.weight
        torch.testing.assert_close(plain(given), y, rtol=0, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["prune", "weight_norm", "parametrizations"])
def test_pruned_and_normalised_weights_train(name, how):
    model, given = case(name)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older weight_norm says that it is
        for key in linears(model):
            part = model.get_submodule(key)
            if how == "prune":
                prune.l1_unstructured(part, "weight", 0.5)
            elif how == "weight_norm":
                weight_norm(part)
            else:
                parametrizations.weight_norm(part)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(given).square().sum().backward()
        optimiser.step()
    missing = [n for n, value in model.named_parameters() if value.grad is None]
    assert not missing


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamically_quantised_networks_answer(name):
    model, given = case(name)
    model.eval()
    expected = model(given)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    assert any("Quantized" in type(p).__name__ or "dynamic" in type(p).__module__
               for p in quantised.modules())  # fmt: skip
    y = quantised(given)
    assert (y - expected).abs().max() < 0.2 * expected.abs().max() + 0.05


@pytest.mark.parametrize("change", [
    lambda mlp: mlp.__setitem__(1, nn.ReLU()),
    lambda mlp: mlp.__setitem__(1, nn.GELU("tanh")),
    lambda mlp: mlp.append(nn.LayerNorm(16)),
    lambda mlp: mlp.__setitem__(2, nn.Tanh()),
    lambda mlp: mlp.__setitem__(4, nn.Tanh()),
    lambda mlp: mlp.__delitem__(4),
    lambda mlp: mlp.insert(0, nn.LayerNorm(16)),
], ids=["relu", "tanh", "append", "no dropout", "last", "shorter", "before"])  # fmt: skip
def test_an_mlp_of_other_parts_is_what_they_are(change):
    torch.manual_seed(0)
    block = ContextClusterBlock(16, heads=2, head_channels=4, layer_scale=0.5)
    x, pos = torch.randn(40, 16), torch.randn(40, 3)
    before = block(x, pos)
    change(block.mlp)
    z = x + block.scale1 * block.cluster(block.norm1(x, None, 1, 40), pos)
    truth = z + block.scale2 * block.mlp(block.norm2(z, None, 1, 40))
    y = block(x, pos)
    torch.testing.assert_close(y, truth, rtol=1e-4, atol=1e-5)
    assert len(block.mlp) != 5 or not torch.equal(y, before)


def test_a_watched_cluster_gives_its_own_output():
    torch.manual_seed(0)
    block = ContextClusterBlock(16, heads=2, head_channels=4, layer_scale=0.5)
    x, pos, seen = torch.randn(40, 16), torch.randn(40, 3), []
    block.cluster.register_forward_hook(lambda part, given, out: seen.append(out))
    block(x, pos)
    block.cluster._forward_hooks.clear()
    torch.testing.assert_close(seen[0], block.cluster(block.norm1(x, None, 1, 40), pos))


def test_parts_of_wrong_shapes_are_torchs_error():
    """Kernels that took them would read memory that is not theirs."""
    x, pos = torch.randn(64, 16), torch.randn(64, 3)

    def block(**parts):
        made = ContextClusterBlock(16, heads=2, head_channels=4, region_size=16)
        for path, part in parts.items():
            parent, last = parent_of(made, path.replace("__", "."))
            setattr(parent, last, part)
        return made

    for parts in (
        {"cluster__fv": nn.Linear(16, 12)},
        {"cluster__fv": nn.Linear(15, 16)},
        {"cluster__proj": nn.Linear(9, 16)},
        {"cluster__alpha": nn.Parameter(torch.ones(2, 3, 5))},
        {"mlp__0": nn.Linear(16, 32)},
        {"mlp__0": nn.Linear(16, 128)},
        {"mlp__3": nn.Linear(64, 15)},
        {"scale2": nn.Parameter(torch.ones(15))},
    ):
        with pytest.raises((RuntimeError, ValueError)):
            block(**parts)(x, pos)
    # A map without a bias is a map without a bias, and an alpha a centre's own matter.
    made = block(cluster__fv=nn.Linear(16, 16, bias=False))
    zero = nn.Linear(16, 16)
    nn.init.zeros_(zero.bias)
    zero.weight = made.cluster.fv.weight
    other = copy.deepcopy(made)
    other.cluster.fv = zero
    torch.testing.assert_close(made(x, pos), other(x, pos))
    reducer = PointReducer(16, 8, k=4, mode="max")
    reducer.place = nn.Linear(16, 9, bias=False)
    with pytest.raises(RuntimeError):
        reducer(x, pos)


def test_a_pool_that_was_cut_or_changed_reads_no_other_memory():
    from pointcluster.ops import use_backend

    x, pos = torch.randn(64, 16), torch.randn(64, 3)
    cluster = ContextClusterBlock(16, heads=2, head_channels=4, region_size=16).cluster
    geometry = cluster.geometry(pos)
    regions = geometry.regions
    whole = cluster(x, geometry)
    for name in ("group", "filled", "pool", "ptr", "of"):
        cut = regions._replace(**{name: getattr(regions, name)[..., :-1]})
        for backend in ("auto", "torch"):
            with use_backend(backend):
                try:
                    y = cluster(x, geometry._replace(regions=cut))
                except (RuntimeError, IndexError, ValueError):
                    continue
            # This backend does not look at what was cut.
            torch.testing.assert_close(y, whole)
    # What the kernels take is what autograd keeps: a change before the way back is noticed.
    y = cluster(x.requires_grad_(), geometry)
    regions.group.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
