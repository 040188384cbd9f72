from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(0)
    return Batch.from_data_list([Data(pos=torch.rand(256, 3, generator=generator))] * 2)


def test_every_variant_is_another_network_that_trains(script, clouds):
    ablation = script("ablation")
    seen = set()
    for name in [ablation.BASE, *ablation.VARIANTS]:
        torch.manual_seed(0)
        model = ablation.peers.create(name, 5)
        logits = model(clouds)
        logits.logsumexp(dim=1).sum().backward()
        assert logits.shape == (2, 5) and logits.isfinite().all()
        model.eval()
        seen.add(tuple(model(clouds)[0].tolist()))
    assert len(seen) == 1 + len(ablation.VARIANTS)


def test_soft_clusters_agree_with_a_loop(script):
    ablation = script("ablation")
    layer = ablation.SoftCluster(6, heads=2, head_channels=3, num_centers=2, k=3, region_size=8)
    layer = layer.double()
    x, pos = torch.randn(2, 8, 6).double()[0], torch.randn(8, 3).double()
    geometry = layer.geometry(pos)
    x = x[geometry.order]
    found, _ = layer.add_to(None, x, geometry)
    expected = torch.zeros(8, 6, dtype=torch.float64)
    f, v = layer.fv(x).view(8, 2, 2, 3).unbind(1)
    for head in range(2):
        pool = geometry.pool[0]
        c, g = pool @ f[:, head], pool @ v[:, head]
        for n in range(8):
            cos = [torch.cosine_similarity(f[n, head], c[m], dim=0) for m in range(2)]
            share = torch.softmax(4 * torch.stack(cos), dim=0)
            expected[n, 3 * head : 3 * head + 3] = 0
            for m in range(2):
                h, mass = g[m].clone(), 1.0
                for other in range(8):
                    near = [torch.cosine_similarity(f[other, head], c[j], dim=0) for j in range(2)]
                    w = torch.sigmoid(layer.beta + layer.alpha * near[m])
                    w = w * torch.softmax(4 * torch.stack(near), dim=0)[m]
                    h, mass = h + w * v[other, head], mass + w
                own = torch.sigmoid(layer.beta + layer.alpha * cos[m]) * share[m]
                expected[n, 3 * head : 3 * head + 3] += own * h / mass
    torch.testing.assert_close(found, layer.proj(expected), rtol=0, atol=1e-10)


def test_soft_clusters_have_no_one_cluster_to_tell(script, clouds):
    model = script("ablation").VARIANTS["soft clusters"](5)
    with pytest.raises(ValueError, match="no one cluster"):
        model.clusters(clouds)
