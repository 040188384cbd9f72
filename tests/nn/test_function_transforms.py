"""torch.func and second derivatives give what autograd gives."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model
from pointcluster.nn import ContextCluster, ContextClusterBlock, GroupEncoder, PointReducer
from pointcluster.ops import use_backend


def points(n=40, channels=8, dtype=torch.float64):
    seed = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, generator=seed, dtype=dtype)
    return x, torch.randn(n, 3, generator=seed, dtype=dtype)


def layers():
    torch.manual_seed(0)
    return {
        "cluster": ContextCluster(8, heads=2, head_channels=4, region_size=16),
        "block": ContextClusterBlock(8, heads=2, head_channels=4, region_size=16, layer_scale=0.5),
        "reducer": PointReducer(8, 6, k=5, mode="max"),
        "concat": PointReducer(8, 6, k=5),
        "groups": GroupEncoder(8, 6, k=5, head_channels=4).eval(),
    }


@pytest.fixture(params=["cluster", "block", "reducer", "concat", "groups"])
def layer(request):
    return layers()[request.param]


def first(found):
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grad_jvp_and_jacrev(layer, dtype):
    layer = layer.to(dtype)
    x, pos = points(dtype=dtype)
    tolerance = (
        {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-9}
    )

    def loss(x):
        return first(layer(x, pos)).square().sum()

    leaf = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(grad(loss)(x), truth, **tolerance)
    torch.testing.assert_close(jacrev(loss)(x), truth, **tolerance)
    tangent = torch.randn(x.shape, dtype=dtype)
    _, slope = jvp(loss, (x,), (tangent,))
    torch.testing.assert_close(slope, (truth * tangent).sum(), **tolerance)
    # ... of the parameters, and of positions that a transform looks at
    values = {name: value.detach() for name, value in layer.named_parameters()}
    found = grad(lambda v: first(functional_call(layer, v, (x, pos))).square().sum())(values)
    truths = torch.autograd.grad(loss(x), list(layer.parameters()))
    for a, b in zip(found.values(), truths, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance["rtol"], atol=10 * tolerance["atol"])
    grad(lambda p: first(layer(x, p)).square().sum())(pos)


def test_vmap_over_features(layer):
    layer = layer.double()
    x, pos = points()
    many = torch.stack([x, -x, 2 * x])
    geometry = None
    if isinstance(layer, ContextCluster):
        geometry = layer.geometry(pos)
    found = vmap(lambda x: first(layer(x, pos if geometry is None else geometry)))(many)
    for a, x in zip(found, many, strict=True):
        torch.testing.assert_close(a, first(layer(x, pos)))


@pytest.mark.parametrize("hidden", [0, 16])
def test_second_derivatives_of_a_reducer(hidden):
    torch.manual_seed(0)
    norms = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        layer = PointReducer(8, 16, k=6, mode="max", hidden=hidden).to(dtype)
        x, pos = points(dtype=torch.float64)
        x = x.to(dtype).requires_grad_()
        y = layer(x, pos.to(dtype))[0]
        (g,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
        g.pow(2).sum().backward()
        norms.append([x.grad.norm().item(), *(p.grad.norm().item() for p in layer.parameters()
                                              if p.grad is not None)])  # fmt: skip
    assert norms[0] == pytest.approx(norms[1], rel=1e-3) and norms[0][0] > 1


@pytest.mark.parametrize("name", ["point_coc_small", "coc_micro", "pointmlp_coc"])
def test_a_gradient_penalty_reaches_every_parameter(name):
    def penalised(dtype, backend):
        torch.manual_seed(0)
        model = create_model(name, num_classes=3).to(dtype).eval()
        seed = torch.Generator().manual_seed(0)
        if name == "coc_micro":
            leaf = given = torch.rand(2, 3, 28, 28, generator=seed).to(dtype).requires_grad_()
        else:
            model = create_model(name, num_classes=3, in_channels=2).to(dtype).eval()
            given = Batch.from_data_list([
                Data(pos=torch.rand(80, 3, generator=seed), x=torch.rand(80, 2, generator=seed))
                for _ in range(2)
            ])  # fmt: skip
            given.pos, given.x = given.pos.to(dtype), given.x.to(dtype).requires_grad_()
            leaf = given.x
        with use_backend(backend):
            y = model(given)
            (g,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
            (g.square().sum() + y.square().sum()).backward()
        return {name: value.grad for name, value in model.named_parameters()}

    truth = penalised(torch.float64, "reference")
    found = penalised(torch.float32, "auto")
    for key, value in truth.items():
        assert (found[key] is None) == (value is None), key
        if value is not None:
            scale = value.abs().max().clamp_min(1e-6)
            assert (found[key] - value).abs().max() <= 2e-2 * scale, key


@pytest.mark.parametrize("name", ["point_coc_tiny", "point_coc_small", "pointmlp_coc"])
def test_gradients_of_a_networks_parameters(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).double().eval()
    batch = Batch.from_data_list([Data(pos=points(n)[1]) for n in (60, 45)])
    values = {key: value.detach() for key, value in model.named_parameters()}
    found = grad(lambda v: functional_call(model, v, (batch,)).square().sum())(values)
    model(batch).square().sum().backward()
    for key, value in model.named_parameters():
        torch.testing.assert_close(found[key], value.grad, rtol=1e-6, atol=1e-9, msg=key)


def test_gradients_of_every_sample():
    torch.manual_seed(0)
    model = create_model("coc_micro", num_classes=3).double().eval()
    images = torch.rand(3, 3, 28, 28, dtype=torch.float64)
    values = {key: value.detach() for key, value in model.named_parameters()}

    def score(values, image):
        return functional_call(model, values, (image[None],)).square().sum()

    found = vmap(grad(score), in_dims=(None, 0))(values, images)
    for number, image in enumerate(images):
        one = grad(score)(values, image)
        for key, value in one.items():
            torch.testing.assert_close(found[key][number], value, rtol=1e-6, atol=1e-9, msg=key)


def test_positions_cannot_be_mapped_over():
    layer, (x, pos) = layers()["cluster"].double(), points()
    with pytest.raises(ValueError, match="positions cannot be mapped over by vmap"):
        vmap(lambda p: layer(x, p))(torch.stack([pos, pos + 1]))
