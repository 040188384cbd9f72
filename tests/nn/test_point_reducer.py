from __future__ import annotations

import re

import pytest
import torch

from pointcluster.geometry import anchor_geometry
from pointcluster.nn import PointReducer

MODES = [("concat", 16), ("max", 16), ("max", 0)]


def points(sizes=(20, 0, 3, 1, 33), channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    pos = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    return torch.randn(sum(sizes), channels, generator=generator, dtype=torch.float64), pos, batch


def make(mode="max", hidden=16, channels=4, **options):
    torch.manual_seed(0)
    options = {"k": 5, "num": 0.5, "mode": mode, "hidden": hidden} | options
    return PointReducer(channels, 7, **options).double()


def loop(layer, x, geometry):
    out = []
    for a in range(len(geometry.anchor)):
        parts = []
        for j, n in enumerate(geometry.grouping[a].tolist()):
            r = geometry.relative[a, j]
            if layer.scaled:
                r = r / geometry.radius[geometry.batch[a]]
            if layer.mode == "concat":
                parts.append(
                    torch.cat([*([x[n]] if x is not None else []), *([r] if layer.dim else [])])
                )
                continue
            value = layer.linear(x[n]) if x is not None else 0
            if layer.dim:
                value = value + layer.place(r if layer.encode is None else layer.encode(r))
            parts.append(value)
        out.append(
            layer.linear(torch.cat(parts)) if layer.mode == "concat" else torch.stack(parts).amax(0)
        )
    return torch.stack(out)


@pytest.mark.parametrize(("mode", "hidden"), MODES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("channels", "dim"), [(4, 3), (0, 3), (4, 0)])
def test_agrees_with_the_loop(mode, hidden, scaled, channels, dim):
    x, pos, batch = points()
    x = x if channels else None
    layer = make(mode, hidden, channels, dim=dim, scaled=scaled)
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    y, anchor_pos, anchor_batch = layer(x, geometry)
    torch.testing.assert_close(y, loop(layer, x, geometry), rtol=0, atol=1e-12)
    assert torch.equal(anchor_pos, pos[geometry.anchor])
    assert torch.equal(anchor_batch, batch[geometry.anchor])


@pytest.mark.parametrize(("mode", "hidden"), MODES)
def test_positions_and_geometry_give_the_same_answer(mode, hidden):
    x, pos, batch = points()
    layer = make(mode, hidden)
    geometry = anchor_geometry(pos, 0.5, 5, batch, batch_size=7)
    for a, b in zip(layer(x, pos, batch, batch_size=7), layer(x, geometry), strict=True):
        assert torch.equal(a, b)
    assert len(layer(x, pos, batch, num=2)[0]) == 2 + 0 + 2 + 1 + 2


@pytest.mark.parametrize(("mode", "hidden"), MODES)
def test_joining_and_moving_clouds_changes_nothing(mode, hidden):
    x, pos, batch = points()
    layer = make(mode, hidden)
    y, _, cloud = layer(x, pos, batch)
    moved = layer(x, pos + torch.tensor([3.0, -1.0, 8.0], dtype=pos.dtype), batch)[0]
    torch.testing.assert_close(moved, y, rtol=0, atol=1e-10)
    for c in (0, 2, 3, 4):
        alone = layer(x[batch == c], pos[batch == c])[0]
        torch.testing.assert_close(alone, y[cloud == c], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "hidden"), MODES)
def test_permuting_points_keeps_the_anchors_features(mode, hidden):
    x, pos, _ = points((40,))
    layer = make(mode, hidden)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    for a, b in zip(layer(x, pos)[:2], layer(x[order], pos[order])[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "hidden"), MODES)
@pytest.mark.parametrize("channels", [4, 0])
def test_gradients(mode, hidden, channels):
    x, pos, batch = points((6, 3))
    layer = make(mode, hidden, channels, k=3)
    geometry = anchor_geometry(pos, 0.5, 3, batch)
    names = [name for name, _ in layer.named_parameters()]
    given = (x.requires_grad_(),) if channels else ()

    def function(*values):
        inputs, weights = (values[:1], values[1:]) if channels else ((None,), values)
        return torch.func.functional_call(
            layer, dict(zip(names, weights, strict=True)), (*inputs, geometry)
        )[0]

    assert torch.autograd.gradcheck(function, (*given, *layer.parameters()))


def test_float32_and_autocast():
    x, pos, batch = points()
    for mode, hidden in MODES:
        layer = make(mode, hidden)
        y = layer(x, pos, batch)[0]
        single = make(mode, hidden).float()
        z = single(x.float(), pos, batch)[0]
        torch.testing.assert_close(z.double(), y, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = single(x.float(), pos.float(), batch)[0]
            half.float().sum().backward()
        assert (half.double() - y).abs().mean() < 0.05
        assert all(torch.isfinite(p.grad).all() for p in single.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 2)}, "x must have 4 channels, found 2"),
        ({"x": None}, "x must have 4 channels, found 0"),
        ({"x": torch.zeros(4, 4)}, "x must have shape [3, 4] (points, channels), found [4, 4]"),
        ({"x": torch.zeros(4)}, "found [4]"),
        ({"x": torch.zeros(3, 4).half()}, "x is torch.float16, the layer torch."),
        ({"x": torch.zeros(3, 4).long()}, "x is torch.int64, the layer torch."),
        ({"x": torch.zeros(3, 4, device="meta")}, "x is on meta"),
        ({"pos": torch.zeros(3, 2)}, "positions must have 3 axes, found 2"),
        ({"batch": torch.tensor([1, 1, 0])}, "sorted"),
    ],
)
def test_bad_input(change, message):
    arguments = {"x": torch.zeros(3, 4), "pos": torch.zeros(3, 3)} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        PointReducer(4, 2, k=2)(**arguments)


def test_bad_options():
    with pytest.raises(ValueError, match="the layer 5"):
        make()(points()[0], anchor_geometry(points()[1], 0.5, 4, points()[2]))
    x, pos, batch = points()
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    with pytest.raises(ValueError, match="go with positions"):
        make()(x, geometry, num=3)
    with pytest.raises(ValueError, match=r"shape \[57, 4\] .*found \[56, 4\]"):
        make()(x[1:], geometry)
    for num in (0, 2.0):
        with pytest.raises(ValueError, match="num must|share"):
            PointReducer(4, 2, num=num)
    for options in ({"mode": "mean"}, {"k": 0}, {"hidden": -1}, {"dim": -1}):
        with pytest.raises(ValueError, match="mode|k must|nothing to gather"):
            PointReducer(4, 2, **options)
    with pytest.raises(ValueError, match="nothing to gather"):
        PointReducer(0, 2, dim=0)


# --- large clouds --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "hidden"), MODES)
@pytest.mark.parametrize(("channels", "dim"), [(4, 3), (0, 3), (4, 0)])
@pytest.mark.parametrize("chunk", [1, 200, 10**9])
def test_parts_give_the_answer_of_the_whole(mode, hidden, channels, dim, chunk, monkeypatch):
    x, pos, batch = points()
    x = x if channels else None
    layer = make(mode, hidden, channels, dim=dim)
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    whole = layer(x, geometry)[0]
    assert whole.requires_grad
    parts = []
    gather = layer._gather_part
    monkeypatch.setattr(layer, "_gather_part", lambda *args: parts.append(args[2]) or gather(*args))
    monkeypatch.setattr("pointcluster.nn.point_reducer.CHUNK", chunk)
    assert torch.equal(layer(x, geometry)[0], whole) and len(parts) == 1  # gradients: in one
    parts.clear()
    with torch.no_grad():
        y = layer(x, geometry)[0]
    torch.testing.assert_close(y, whole, rtol=0, atol=1e-12)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(y)))
    assert len(parts) == len(y) if chunk == 1 else (len(parts) == 1) == (chunk == 10**9)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, geometry)[0], whole, rtol=0, atol=1e-12)


def test_parts_under_autocast_keep_its_type(monkeypatch):
    x, pos, batch = points()
    layer = make().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = layer(x.float(), pos.float(), batch)[0]
        monkeypatch.setattr("pointcluster.nn.point_reducer.CHUNK", 1)
        parts = layer(x.float(), pos.float(), batch)[0]
    assert parts.dtype == whole.dtype == torch.bfloat16
    torch.testing.assert_close(parts, whole)


def test_clouds_without_points_gather_nothing(monkeypatch):
    monkeypatch.setattr("pointcluster.nn.point_reducer.CHUNK", 1)
    with torch.no_grad():
        y = make()(torch.zeros(0, 4).double(), torch.zeros(0, 3).double())[0]
    assert y.shape == (0, 7)


@pytest.mark.parametrize("mode", ["concat", "max"])
def test_normalises_the_anchors_over_the_batch(mode):
    x, pos, batch = points()
    layer = make(mode, norm=True)
    geometry = anchor_geometry(pos, 0.5, 5, batch)
    plain = loop(layer, x, geometry)
    mean, variance = plain.mean(dim=0), plain.var(dim=0, unbiased=False)
    expected = torch.nn.functional.gelu((plain - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(layer(x, geometry)[0], expected, rtol=0, atol=1e-12)
    layer.eval()
    kept = layer.norm[0]
    expected = torch.nn.functional.gelu(
        (plain - kept.running_mean) / (kept.running_var + 1e-5).sqrt()
    )
    torch.testing.assert_close(layer(x, geometry)[0], expected, rtol=0, atol=1e-12)
    assert "norm.0.running_mean" in layer.state_dict()
    assert not any(key.startswith("norm") for key in make(mode).state_dict())
