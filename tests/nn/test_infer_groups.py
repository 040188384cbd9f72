from __future__ import annotations

import pytest
import torch

from pointcluster.geometry import anchor_geometry
from pointcluster.nn import GroupEncoder, group_rows
from pointcluster.nn.infer_groups import infer_groups
from pointcluster.nn.lean_groups import LeanGroups


@pytest.mark.parametrize("elements", [100, 1 << 20])
def test_without_gradients_as_with_them(elements, monkeypatch):
    monkeypatch.setattr(group_rows, "ELEMENTS", elements)
    torch.manual_seed(0)
    layer = GroupEncoder(6, 10, k=5, blocks=2, head_channels=4).double().eval()
    for value in layer.state_dict().values():
        if value.is_floating_point():
            value += 0.2 * torch.rand_like(value)
    x, pos = torch.randn(40, 6).double(), torch.randn(40, 3).double()
    geometry = anchor_geometry(pos, 0.5, 5)
    u, a = (each.detach() for each in layer._points(x, geometry))
    blocks, norms = layer._blocks(), layer._norms()
    flat = [layer.norm.weight, layer.norm.bias, *(each for block in blocks for each in block)]
    known = [(norm.running_mean, norm.running_var) for norm in norms]
    with_gradients = LeanGroups.apply(u, a, geometry.grouping, layer.norm.eps, known, *flat)[0]
    first, *others = layer._known()
    affines = list(zip(others[::2], others[1::2], strict=True))
    with torch.no_grad():
        found = infer_groups(u, a, geometry.grouping, first, blocks, affines)
        torch.testing.assert_close(found, with_gradients)
        for block in (0, 1):
            s = infer_groups(u, a, geometry.grouping, first, blocks, affines, similarity_of=block)
            assert torch.equal(s, layer.similarities(x, geometry, block)) and s.shape == (20, 5)
